/* Reads one HTTP/1.1 response, piece by piece, and gives its body without the framing.
 *
 * Enters: bytes as they came. Leaves: the body's bytes, and when it is whole. Must not: accept a body that nothing
 * frames. It trusts its peer more than a client should: it is for benchmarks. */
#ifndef RESPONSE_H
#define RESPONSE_H

#include "net.h"

typedef enum { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, WHOLE, BROKEN } Stage;

typedef struct {
    Stage stage;
    Buffer line; /* the head, or a line of the framing, until it is complete */
    int status, closes;
    size_t left; /* bytes of the body, or of its chunk, still to come */
} Response;

void response_begin(Response *response);
/* Takes all bytes up to the end of the response. `body` is called with each piece of its body. */
void response_feed(Response *response, const char *data, size_t size,
                   void (*body)(void *whom, const char *data, size_t size), void *whom);

#endif
