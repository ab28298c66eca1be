/* The client: many requests at once, and the time of every chunk of every answer.
 *
 * Enters: a request body, the answer to expect, how many connections. Leaves: one line of JSON with rates, times to
 * the first event, gaps, and what was wrong; before it the lines "begin" and "end", when what counts begins and ends.
 * Must not: take an answer for right that is not what was expected. One thread and epoll.
 *
 * usage: streams --port N --body FILE [--events N] [--expect FILE] [--connections 1] [--seconds 3] [--warmup 0.5]
 *                [--spread-us 0] [--interval-us 0] [--tls 1] [--path /v1/chat/completions]
 *
 * --events: a stream; status 200, this many events and [DONE] at its end must be there. --expect: the body must be
 * these bytes.
 * --spread-us: the connections begin evenly over this time. --interval-us: from the start of one request to that of
 * the next on a connection; 0: at once. */
#define _GNU_SOURCE
#include "net.h"
#include "response.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define READ_SIZE 65536
#define GRACE_US 5000000
#define DONE "[DONE]"

typedef struct {
    uint32_t *data;
    size_t used, size;
} Times;

typedef struct {
    Wire wire;
    Response response;
    int busy, connected, watches_out, reused;
    size_t sent;
    uint64_t due, started, first, last; /* first, last: when events were complete; 0: not yet */
    size_t at;                          /* bytes of the body so far */
    int wrong, events, newline;
    char tail[16];                      /* the end of the body so far */
} Flow;

static struct {
    int port, events, connections, tls;
    const char *path;
    double seconds, warmup;
    uint64_t spread, interval;
} asked = {.path = "/v1/chat/completions", .connections = 1, .seconds = 3, .warmup = 0.5};

static Buffer request, expected;
static int has_expected, poller, counting;
static SSL_CTX *tls;
static uint64_t begins, ends;
static Times first_times, total_times, gaps;
static unsigned long responses, events_seen, failed, mismatched, connections_made;
static char fault[160];

static void time_add(Times *times, uint64_t value) {
    if (!counting) return;
    if (times->used == times->size) {
        times->size = times->size ? 2 * times->size : 65536;
        times->data = realloc(times->data, times->size * sizeof *times->data);
        if (!times->data) die("memory");
    }
    times->data[times->used++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static void flow_watch(Flow *flow, int how, int out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = flow};
    if (epoll_ctl(poller, how, flow->wire.fd, &event)) die("epoll_ctl");
    flow->watches_out = out;
}

static void flow_close(Flow *flow) {
    if (flow->connected) wire_close(&flow->wire);
    flow->connected = flow->reused = 0;
}

static void flow_write(Flow *flow) {
    while (flow->sent < request.used) {
        long sent = wire_write(&flow->wire, request.data + flow->sent, request.used - flow->sent);
        if (sent == WIRE_WAIT) {
            if (!flow->watches_out) flow_watch(flow, EPOLL_CTL_MOD, 1);
            return;
        }
        if (sent <= 0) return; /* the read that follows tells */
        flow->sent += (size_t)sent;
    }
    if (flow->watches_out) flow_watch(flow, EPOLL_CTL_MOD, 0);
}

static void flow_begin(Flow *flow, uint64_t now) {
    if (!flow->connected) {
        flow->wire.fd = connect_to(asked.port);
        if (flow->wire.fd < 0) die("connect");
        if (tls) {
            flow->wire.ssl = SSL_new(tls);
            if (!flow->wire.ssl || !SSL_set_fd(flow->wire.ssl, flow->wire.fd)) die("TLS");
            SSL_set_connect_state(flow->wire.ssl);
        }
        flow->connected = 1;
        connections_made++;
        flow_watch(flow, EPOLL_CTL_ADD, 0);
    }
    flow->busy = 1;
    flow->started = now;
    flow->due = now + asked.interval;
    flow->sent = flow->at = 0;
    flow->first = flow->last = 0;
    flow->wrong = flow->events = flow->newline = 0;
    memset(flow->tail, 0, sizeof flow->tail);
    response_begin(&flow->response);
    flow_write(flow);
}

/* An event ends with an empty line. */
static void events_count(Flow *flow, const char *data, size_t size) {
    const char *end = data + size;
    for (const char *at = data; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        flow->events += at == data ? flow->newline : at[-1] == '\n';
    flow->newline = end[-1] == '\n';
    size_t keep = size < sizeof flow->tail ? size : sizeof flow->tail;
    memmove(flow->tail, flow->tail + keep, sizeof flow->tail - keep);
    memcpy(flow->tail + sizeof flow->tail - keep, end - keep, keep);
}

static void flow_body(void *whom, const char *data, size_t size) {
    Flow *flow = whom;
    if (has_expected && !flow->wrong) {
        if (flow->at + size > expected.used || memcmp(expected.data + flow->at, data, size)) flow->wrong = 1;
    }
    flow->at += size;
    events_count(flow, data, size);
}

static void flow_failed(Flow *flow, const char *why) {
    failed++;
    if (!fault[0]) snprintf(fault, sizeof fault, "%s (status %d, %zu bytes)", why, flow->response.status, flow->at);
    flow->busy = 0;
    flow->due = now_us() + 1000; /* a peer that refuses everything is not flooded */
    flow_close(flow);
}

static void flow_whole(Flow *flow, uint64_t now) {
    int right = flow->response.status == 200;
    if (has_expected) right = right && !flow->wrong && flow->at == expected.used;
    if (asked.events)
        right = right && flow->events >= asked.events && memmem(flow->tail, sizeof flow->tail, DONE, strlen(DONE));
    if (counting) responses++;
    if (!right) {
        mismatched++;
        if (!fault[0]) snprintf(fault, sizeof fault, "another answer than expected (status %d, %zu bytes, %d events)",
                                flow->response.status, flow->at, flow->events);
    }
    time_add(&total_times, now - flow->started);
    flow->busy = 0;
    flow->reused = 1;
    if (flow->response.closes) flow_close(flow);
}

static void flow_read(Flow *flow) {
    static char data[READ_SIZE];
    for (;;) {
        long got = wire_read(&flow->wire, data, sizeof data);
        if (got == WIRE_WAIT) return;
        if (got <= 0) {
            if (!flow->busy) flow_close(flow);
            else if (flow->reused && !flow->at && flow->response.stage == HEAD) {
                flow_close(flow); /* closed while idle: no fault, and asked again */
                flow->busy = 0, flow->due = 0;
            } else flow_failed(flow, "cut off");
            return;
        }
        if (!flow->busy) {
            flow_failed(flow, "bytes that nobody asked for");
            return;
        }
        uint64_t now = now_us();
        int before = flow->events;
        size_t at = flow->at;
        response_feed(&flow->response, data, (size_t)got, flow_body, flow);
        int came = flow->events - before;
        if (!flow->first && (asked.events ? came > 0 : flow->at > at)) {
            flow->first = now;
            time_add(&first_times, now - flow->started);
        }
        if (counting) events_seen += (unsigned long)came;
        for (; came; came--, flow->last = now) /* what one read brings came at one time */
            if (flow->last) time_add(&gaps, now - flow->last);
        if (flow->response.stage == BROKEN) {
            flow_failed(flow, "no valid response");
            return;
        }
        if (flow->response.stage == WHOLE) {
            flow_whole(flow, now);
            return;
        }
        if (!flow->wire.ssl && (size_t)got < sizeof data) return;
    }
}

static int by_value(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static void times_print(const char *name, Times *times) {
    qsort(times->data, times->used, sizeof *times->data, by_value);
    printf(",\"%s\":{\"count\":%zu", name, times->used);
    static const struct { const char *name; double part; } parts[] = {
        {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
    for (size_t number = 0; times->used && number < sizeof parts / sizeof *parts; number++) {
        size_t at = (size_t)(parts[number].part * (double)(times->used - 1) + 0.5);
        printf(",\"%s\":%u", parts[number].name, times->data[at]);
    }
    printf("}");
}

static void say(const char *word) {
    printf("%s\n", word);
    fflush(stdout);
}

/* Starts what is due. The time until the next start, or -1. */
static long flows_start(Flow *flows, uint64_t now) {
    uint64_t next = UINT64_MAX;
    for (int number = 0; number < asked.connections; number++) {
        Flow *flow = &flows[number];
        if (flow->busy || now >= ends) continue;
        if (flow->due <= now) flow_begin(flow, now);
        else if (flow->due < next) next = flow->due;
    }
    if (now < begins && begins < next) next = begins;
    if (now < ends && ends < next) next = ends;
    return next == UINT64_MAX ? -1 : (long)(next - now);
}

static int flows_busy(const Flow *flows) {
    for (int number = 0; number < asked.connections; number++)
        if (flows[number].busy) return 1;
    return 0;
}

static void run(Flow *flows) {
    struct epoll_event events[256];
    for (;;) {
        uint64_t now = now_us();
        if (!counting && now >= begins && now < ends) counting = 1, say("begin");
        if (counting && now >= ends) counting = 0, say("end");
        long left = flows_start(flows, now);
        if (now >= ends && !flows_busy(flows)) return;
        if (now >= ends + GRACE_US) {
            failed++;
            if (!fault[0]) snprintf(fault, sizeof fault, "an answer did not end");
            return;
        }
        if (left < 0) left = GRACE_US;
        struct timespec wait = {left / 1000000, left % 1000000 * 1000};
        int count = epoll_pwait2(poller, events, 256, &wait, NULL);
        if (count < 0 && errno != EINTR) die("epoll_pwait2");
        for (int number = 0; number < count; number++) {
            Flow *flow = events[number].data.ptr;
            if (events[number].events & EPOLLOUT && flow->connected) flow_write(flow);
            if (events[number].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && flow->connected) flow_read(flow);
        }
    }
}

static void read_file(const char *path, Buffer *into) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) die(path);
    for (ssize_t got = 1; got > 0; into->used += (size_t)got) {
        buffer_room(into, READ_SIZE);
        got = read(fd, into->data + into->used, READ_SIZE);
        if (got < 0) die(path);
    }
    close(fd);
}

static void arguments(int argc, char **argv) {
    Buffer body = {0};
    for (int number = 1; number + 1 < argc; number += 2) {
        const char *name = argv[number], *value = argv[number + 1];
        if (!strcmp(name, "--port")) asked.port = atoi(value);
        else if (!strcmp(name, "--path")) asked.path = value;
        else if (!strcmp(name, "--body")) read_file(value, &body);
        else if (!strcmp(name, "--expect")) read_file(value, &expected), has_expected = 1;
        else if (!strcmp(name, "--events")) asked.events = atoi(value);
        else if (!strcmp(name, "--connections")) asked.connections = atoi(value);
        else if (!strcmp(name, "--seconds")) asked.seconds = atof(value);
        else if (!strcmp(name, "--warmup")) asked.warmup = atof(value);
        else if (!strcmp(name, "--spread-us")) asked.spread = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--interval-us")) asked.interval = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--tls")) asked.tls = atoi(value);
        else fprintf(stderr, "unknown: %s\n", name), exit(2);
    }
    char head[512];
    int size = snprintf(head, sizeof head,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                        "Authorization: Bearer unused\r\nContent-Length: %zu\r\n\r\n", asked.path, asked.port, body.used);
    buffer_add(&request, head, (size_t)size);
    buffer_add(&request, body.data, body.used);
    free(body.data);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);  /* OpenSSL writes without MSG_NOSIGNAL, and peers leave */
    arguments(argc, argv);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll");
    if (asked.tls) {
        tls = SSL_CTX_new(TLS_client_method());
        if (!tls) die("TLS");
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(tls, 1);
    }
    Flow *flows = calloc((size_t)asked.connections, sizeof *flows);
    if (!flows) die("memory");
    uint64_t now = now_us();
    for (int number = 0; number < asked.connections; number++)
        flows[number].due = now + asked.spread * (uint64_t)number / (uint64_t)asked.connections;
    begins = now + (uint64_t)(asked.warmup * 1e6);
    ends = begins + (uint64_t)(asked.seconds * 1e6);
    run(flows);
    printf("{\"seconds\":%.6f,\"responses\":%lu,\"events\":%lu,\"failed\":%lu,\"mismatched\":%lu,\"connections\":%lu,"
           "\"fault\":\"%s\"", asked.seconds, responses, events_seen, failed, mismatched, connections_made, fault);
    times_print("first_us", &first_times);
    times_print("total_us", &total_times);
    times_print("gap_us", &gaps);
    printf("}\n");
    return 0;
}
