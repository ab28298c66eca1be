#define _GNU_SOURCE
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long ssl_outcome(Wire *wire, int done) {
    if (done > 0) return done;
    int reason = SSL_get_error(wire->ssl, done);
    ERR_clear_error();
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return WIRE_WAIT;
    return reason == SSL_ERROR_ZERO_RETURN ? WIRE_CLOSED : WIRE_FAILED;
}

long wire_read(Wire *wire, char *into, size_t size) {
    if (wire->ssl) return ssl_outcome(wire, SSL_read(wire->ssl, into, (int)size));
    ssize_t got = recv(wire->fd, into, size, 0);
    if (got >= 0) return got;
    return errno == EAGAIN || errno == EINPROGRESS ? WIRE_WAIT : WIRE_FAILED;
}

long wire_write(Wire *wire, const char *data, size_t size) {
    if (wire->ssl) return ssl_outcome(wire, SSL_write(wire->ssl, data, (int)size));
    ssize_t sent = send(wire->fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    return errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN ? WIRE_WAIT : WIRE_FAILED;
}

void wire_close(Wire *wire) {
    if (wire->ssl) SSL_free(wire->ssl);
    if (wire->fd >= 0) close(wire->fd);
    wire->ssl = NULL;
    wire->fd = -1;
}

void buffer_room(Buffer *buffer, size_t size) {
    if (buffer->size - buffer->used >= size) return;
    size_t wanted = buffer->size ? buffer->size : 4096;
    while (wanted - buffer->used < size) wanted *= 2;
    buffer->data = realloc(buffer->data, wanted);
    if (!buffer->data) die("memory");
    buffer->size = wanted;
}

void buffer_add(Buffer *buffer, const char *data, size_t size) {
    buffer_room(buffer, size);
    memcpy(buffer->data + buffer->used, data, size);
    buffer->used += size;
}

void buffer_drop(Buffer *buffer, size_t size) {
    buffer->used -= size;
    if (buffer->used) memmove(buffer->data, buffer->data + size, buffer->used);
}

uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void set_nodelay(int fd) {
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) die("TCP_NODELAY");
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int listen_on(int *port) {
    struct sockaddr_in address = loopback(*port);
    socklen_t size = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, size)) die("bind");
    if (listen(fd, 4096)) die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size)) die("getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

int connect_to(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    set_nodelay(fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

void die(const char *what) {
    unsigned long reason = ERR_get_error();
    fprintf(stderr, "%s: %s\n", what, reason ? ERR_error_string(reason, NULL) : strerror(errno));
    exit(1);
}
