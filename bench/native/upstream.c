/* The scripted upstream: answers chat completions and takes OTLP exports, fast enough to be measured through.
 *
 * Enters: HTTP/1.1 requests on loopback, kept alive, plain and by TLS. Leaves: what script.h says; for exports an
 * empty 200; for GET /counts what has come in. Must not: parse more than it needs, or wait for anybody.
 * One thread and epoll. Prints its ports as one line of JSON, then serves until it is killed.
 *
 * usage: upstream [--certificate FILE --key FILE] */
#define _GNU_SOURCE
#include "net.h"
#include "script.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define READ_SIZE 65536
#define LARGEST_HEAD 65536

typedef struct {
    Wire wire;
    Buffer in, out;
    size_t head, body;     /* sizes of the request being read; head 0: not yet known */
    Script script;
    int next;              /* chunk of the stream to send next; -1: no stream is under way */
    uint64_t started, due; /* of the stream, and of its next chunk */
    int place;             /* in the heap of timers; -1: not in it */
    int listening, closing;
} Peer;

static int poller;
static SSL_CTX *tls;
static Peer **timers;
static int timers_used, timers_size;
static struct { unsigned long chats, exports, export_bytes, others; } counts;

/* --- timers: a binary heap by time due --- */

static void timer_set(int place, Peer *peer) {
    timers[place] = peer;
    peer->place = place;
}

static void timer_settle(int place) {
    Peer *peer = timers[place];
    for (; place > 0 && timers[(place - 1) / 2]->due > peer->due; place = (place - 1) / 2)
        timer_set(place, timers[(place - 1) / 2]);
    for (int child; (child = 2 * place + 1) < timers_used; place = child) {
        if (child + 1 < timers_used && timers[child + 1]->due < timers[child]->due) child++;
        if (timers[child]->due >= peer->due) break;
        timer_set(place, timers[child]);
    }
    timer_set(place, peer);
}

static void timer_start(Peer *peer) {
    if (peer->place < 0) {
        if (timers_used == timers_size) {
            timers_size = timers_size ? 2 * timers_size : 256;
            timers = realloc(timers, (size_t)timers_size * sizeof *timers);
            if (!timers) die("memory");
        }
        timer_set(timers_used++, peer);
    }
    timer_settle(peer->place);
}

static void timer_stop(Peer *peer) {
    int place = peer->place;
    if (place < 0) return;
    peer->place = -1;
    Peer *moved = timers[--timers_used];
    if (moved == peer) return;
    timer_set(place, moved);
    timer_settle(place);
}

/* --- connections --- */

static void peer_watch(Peer *peer, int how, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = peer};
    if (epoll_ctl(poller, how, peer->wire.fd, &event)) die("epoll_ctl");
}

static Peer *peer_new(int fd, SSL_CTX *context) {
    Peer *peer = calloc(1, sizeof *peer);
    if (!peer) die("memory");
    peer->wire.fd = fd;
    peer->next = peer->place = -1;
    if (context) {
        peer->wire.ssl = SSL_new(context);
        if (!peer->wire.ssl || !SSL_set_fd(peer->wire.ssl, fd)) die("TLS");
        SSL_set_accept_state(peer->wire.ssl);
    }
    return peer;
}

static void peer_free(Peer *peer) {
    timer_stop(peer);
    wire_close(&peer->wire);
    free(peer->in.data);
    free(peer->out.data);
    free(peer);
}

/* What cannot go out now waits in `out`. 0: the connection is gone. */
static int peer_send(Peer *peer, const char *data, size_t size) {
    if (!peer->out.used) {
        long sent = wire_write(&peer->wire, data, size);
        if (sent == WIRE_FAILED || sent == WIRE_CLOSED) return 0;
        if (sent == WIRE_WAIT) sent = 0;
        if ((size_t)sent == size) return 1;
        data += sent, size -= (size_t)sent;
        peer_watch(peer, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    buffer_add(&peer->out, data, size);
    return 1;
}

static int peer_send_text(Peer *peer, const char *status, const char *type, const char *body) {
    char answer[1024];
    int size = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
                        status, type, strlen(body), body);
    return peer_send(peer, answer, (size_t)size);
}

/* Send what is due of a stream. A chunk that the peer cannot take waits, and with it all that follow. */
static int peer_stream(Peer *peer, uint64_t now) {
    while (peer->next >= 0 && peer->due <= now && !peer->out.used) {
        const Buffer *chunk = script_chunk(&peer->script, peer->next);
        int sent;
        if (peer->next == 0) {
            char first[2048];
            memcpy(first, stream_head.data, stream_head.used);
            memcpy(first + stream_head.used, chunk->data, chunk->used);
            sent = peer_send(peer, first, stream_head.used + chunk->used);
        } else {
            sent = peer_send(peer, chunk->data, chunk->used);
        }
        if (!sent) return 0;
        peer->next = peer->next + 1 < peer->script.chunks ? peer->next + 1 : -1;
        peer->due = peer->started + (uint64_t)peer->next * peer->script.interval_us;
    }
    if (peer->next >= 0 && !peer->out.used) timer_start(peer);
    else timer_stop(peer);
    return 1;
}

static int peer_answer(Peer *peer, const char *path, const char *body) {
    if (strstr(path, "/chat/completions")) {
        counts.chats++;
        if (!script_of(body, peer->body, &peer->script))
            return peer_send_text(peer, "400 Bad Request", "text/plain", "no script: the model is none\n");
        if (!peer->script.chunks) return peer_send(peer, plain_answer.data, plain_answer.used);
        peer->next = 0;
        peer->started = peer->due = now_us();
        return peer_stream(peer, peer->started);
    }
    if (strstr(path, "/v1/traces") || strstr(path, "/v1/metrics")) {
        counts.exports++;
        counts.export_bytes += peer->body;
        return peer_send_text(peer, "200 OK", "application/x-protobuf", "");
    }
    if (strstr(path, "/counts")) {
        char text[256];
        snprintf(text, sizeof text, "{\"chats\":%lu,\"exports\":%lu,\"export_bytes\":%lu,\"others\":%lu}\n",
                 counts.chats, counts.exports, counts.export_bytes, counts.others);
        return peer_send_text(peer, "200 OK", "application/json", text);
    }
    counts.others++;
    if (strstr(path, "/models"))
        return peer_send_text(peer, "200 OK", "application/json",
                              "{\"object\":\"list\",\"data\":[{\"id\":\"plain\",\"object\":\"model\"}]}");
    return peer_send_text(peer, "404 Not Found", "text/plain", "not found\n");
}

/* Sizes of the request whose head is in `in`. 0: it is none that is understood here. */
static int peer_measure(Peer *peer) {
    char *end = memmem(peer->in.data, peer->in.used, "\r\n\r\n", 4);
    if (!end) return peer->in.used < LARGEST_HEAD;
    *end = 0;
    peer->body = 0;
    for (char *line = peer->in.data; (line = strstr(line, "\r\n"));) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) peer->body = strtoul(line + 15, NULL, 10);
        if (!strncasecmp(line, "transfer-encoding:", 18)) return 0;
        if (!strncasecmp(line, "connection: close", 17)) peer->closing = 1;
    }
    peer->head = (size_t)(end - peer->in.data) + 4;
    return 1;
}

/* Answer every whole request that is there. 0: the connection ends. */
static int peer_requests(Peer *peer) {
    while (peer->in.used && peer->next < 0) {
        if (!peer->head && !peer_measure(peer)) {
            fprintf(stderr, "upstream: a request that is not understood: %.200s\n", peer->in.data);
            return 0;
        }
        if (!peer->head || peer->in.used < peer->head + peer->body) return 1;
        char path[256] = "";
        sscanf(peer->in.data, "%*s %255s", path);
        if (!peer_answer(peer, path, peer->in.data + peer->head)) return 0;
        buffer_drop(&peer->in, peer->head + peer->body);
        peer->head = peer->body = 0;
        if (peer->closing && peer->next < 0 && !peer->out.used) return 0;
    }
    return 1;
}

static int peer_readable(Peer *peer) {
    for (;;) {
        /* A large body is read in large pieces: its buffer has the room once its size is known. */
        size_t missing = peer->head && peer->head + peer->body > peer->in.used
                             ? peer->head + peer->body - peer->in.used : 0;
        size_t size = missing > READ_SIZE ? missing : READ_SIZE;
        buffer_room(&peer->in, size + 1);
        long got = wire_read(&peer->wire, peer->in.data + peer->in.used, size);
        if (got == WIRE_WAIT) return 1;
        if (got <= 0) return 0;
        peer->in.used += (size_t)got;
        if (!peer_requests(peer)) return 0;
        if (!peer->wire.ssl && (size_t)got < size) return 1;
    }
}

static int peer_writable(Peer *peer) {
    while (peer->out.used) {
        long sent = wire_write(&peer->wire, peer->out.data, peer->out.used);
        if (sent == WIRE_WAIT) return 1;
        if (sent <= 0) return 0;
        buffer_drop(&peer->out, (size_t)sent);
    }
    peer_watch(peer, EPOLL_CTL_MOD, EPOLLIN);
    return peer_stream(peer, now_us()) && peer_requests(peer);
}

static void accept_all(Peer *listener, SSL_CTX *context) {
    int fd;
    while ((fd = accept4(listener->wire.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        set_nodelay(fd);
        peer_watch(peer_new(fd, context), EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void serve(Peer *secure) {
    struct epoll_event events[256];
    for (;;) {
        struct timespec wait = {0}, *until = NULL;
        if (timers_used) {
            uint64_t now = now_us(), due = timers[0]->due;
            if (due > now) wait = (struct timespec){(time_t)((due - now) / 1000000), (long)((due - now) % 1000000 * 1000)};
            until = &wait;
        }
        int count = epoll_pwait2(poller, events, 256, until, NULL);
        if (count < 0 && errno != EINTR) die("epoll_pwait2");
        for (int number = 0; number < count; number++) {
            Peer *peer = events[number].data.ptr;
            if (peer->listening) {
                accept_all(peer, peer == secure ? tls : NULL);
                continue;
            }
            int alive = !(events[number].events & EPOLLOUT) || peer_writable(peer);
            if (alive && events[number].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) alive = peer_readable(peer);
            if (!alive) peer_free(peer);
        }
        for (uint64_t now = now_us(); timers_used && timers[0]->due <= now;) {
            Peer *peer = timers[0];
            if (!peer_stream(peer, now) || !peer_requests(peer)) peer_free(peer);
        }
    }
}

static Peer *listener(int *port) {
    Peer *peer = peer_new(listen_on(port), NULL);
    peer->listening = 1;
    peer_watch(peer, EPOLL_CTL_ADD, EPOLLIN);
    return peer;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);  /* OpenSSL writes without MSG_NOSIGNAL, and peers leave */
    const char *certificate = NULL, *key = NULL;
    for (int number = 1; number + 1 < argc; number += 2) {
        if (!strcmp(argv[number], "--certificate")) certificate = argv[number + 1];
        else if (!strcmp(argv[number], "--key")) key = argv[number + 1];
        else return fprintf(stderr, "unknown: %s\n", argv[number]), 2;
    }
    script_prepare();
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll");
    int port = 0, tls_port = 0;
    Peer *secure = NULL;
    listener(&port);
    if (certificate) {
        tls = SSL_CTX_new(TLS_server_method());
        if (!tls || SSL_CTX_use_certificate_chain_file(tls, certificate) != 1) die(certificate);
        if (SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) die(key);
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(tls, 1);
        secure = listener(&tls_port);
    }
    printf("{\"port\":%d,\"tls_port\":%d}\n", port, tls_port);
    fflush(stdout);
    serve(secure);
}
