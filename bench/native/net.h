/* What upstream and client share: bytes over plain TCP or TLS without blocking, buffers that grow, the clock.
 *
 * Enters: file descriptors. Leaves: bytes. Must not: know HTTP. */
#ifndef NET_H
#define NET_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_CLOSED = 0, WIRE_WAIT = -1, WIRE_FAILED = -2 };

/* One connection; `ssl` is NULL on plain TCP. */
typedef struct {
    int fd;
    SSL *ssl;
} Wire;

typedef struct {
    char *data;
    size_t used, size;
} Buffer;

/* Bytes read or written, or one of WIRE_*. */
long wire_read(Wire *wire, char *into, size_t size);
long wire_write(Wire *wire, const char *data, size_t size);
void wire_close(Wire *wire);

void buffer_add(Buffer *buffer, const char *data, size_t size);
void buffer_room(Buffer *buffer, size_t size); /* at least `size` bytes free after `used` */
void buffer_drop(Buffer *buffer, size_t size); /* forget the first `size` bytes */

uint64_t now_us(void); /* monotonic */

int listen_on(int *port);          /* loopback; *port 0: any free one, and *port tells which */
int connect_to(int port);          /* to loopback, not waiting; -1 where refused */
void set_nodelay(int fd);
_Noreturn void die(const char *what); /* with errno's or OpenSSL's reason */

#endif
