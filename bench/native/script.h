/* What the upstream says: one plain chat completion, and streams of any number of chunks.
 *
 * Enters: a request's body. Leaves: ready-made bytes with their framing. Must not: touch a socket.
 *
 * The script is the request's model, which every proxy passes on even where it writes the body anew:
 * `plain`, or `stream-CHUNKS-MICROSECONDS` with the pause between two chunks (0: none). Every chunk of a stream
 * is different, so that one that is lost, doubled or late in order is seen. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include "net.h"

#define MOST_CHUNKS 1000

typedef struct {
    int chunks; /* 0: the plain answer */
    uint64_t interval_us;
    int usage; /* the request asked for a stream's usage */
} Script;

void script_prepare(void);
/* 0 where the body names no script. */
int script_of(const char *body, size_t size, Script *script);

extern Buffer plain_answer, stream_head;
/* The bytes of one chunk of a stream: an SSE event in an HTTP chunk; with the last one, all that ends it. */
const Buffer *script_chunk(const Script *script, int number);

#endif
