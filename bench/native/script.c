#define _GNU_SOURCE
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAMP "\"created\":1760000000,\"model\":\"bench-model-2026-01-01\""
#define HEADERS "x-request-id: req_00000000000000000000000000000001\r\nopenai-processing-ms: 1\r\n"
#define USAGE "{\"prompt_tokens\":21,\"completion_tokens\":64,\"total_tokens\":85,"                                \
    "\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}"

Buffer plain_answer, stream_head;
static Buffer chunks[MOST_CHUNKS];
static Buffer last[2]; /* without usage, with it */

static void add_text(Buffer *buffer, const char *text) { buffer_add(buffer, text, strlen(text)); }

static void add_chunk(Buffer *buffer, const char *data) {
    char size[32];
    snprintf(size, sizeof size, "%zx\r\n", strlen(data));
    add_text(buffer, size);
    add_text(buffer, data);
    add_text(buffer, "\r\n");
}

static void add_event(Buffer *buffer, const char *choices, const char *usage) {
    char event[1024];
    snprintf(event, sizeof event,
             "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\"," STAMP ","
             "\"service_tier\":\"default\",\"choices\":[%s]%s}\n\n", choices, usage);
    add_chunk(buffer, event);
}

void script_prepare(void) {
    const char *body =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\"," STAMP ",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"The quick brown fox jumps over the lazy dog, and the "
        "upstream says so each time it is asked.\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":" USAGE ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\"}";
    char head[512];
    snprintf(head, sizeof head,
             "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" HEADERS "Content-Length: %zu\r\n\r\n", strlen(body));
    add_text(&plain_answer, head);
    add_text(&plain_answer, body);
    add_text(&stream_head, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n" HEADERS
                           "Transfer-Encoding: chunked\r\n\r\n");
    for (int number = 0; number < MOST_CHUNKS; number++) {
        char choice[256];
        snprintf(choice, sizeof choice,
                 "{\"index\":0,\"delta\":{%s\"content\":\" word%03d\"},\"logprobs\":null,\"finish_reason\":null}",
                 number ? "" : "\"role\":\"assistant\",", number);
        add_event(&chunks[number], choice, "");
    }
    for (int usage = 0; usage < 2; usage++) {
        add_event(&last[usage], "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", "");
        if (usage) add_event(&last[usage], "", ",\"usage\":" USAGE);
        add_chunk(&last[usage], "data: [DONE]\n\n");
        add_text(&last[usage], "0\r\n\r\n");
    }
}

const Buffer *script_chunk(const Script *script, int number) {
    return number == script->chunks - 1 ? &last[script->usage] : &chunks[number];
}

/* The text after `name` and its colon, whatever blanks a proxy wrote there. */
static const char *value_of(const char *body, size_t size, const char *name) {
    const char *at = memmem(body, size, name, strlen(name)), *end = body + size;
    if (!at) return NULL;
    at += strlen(name);
    while (at < end && (*at == ' ' || *at == ':')) at++;
    return at < end ? at : NULL;
}

int script_of(const char *body, size_t size, Script *script) {
    char name[64] = "";
    const char *value = value_of(body, size, "\"model\"");
    if (!value || *value++ != '"') return 0;
    size_t left = (size_t)(body + size - value);
    memcpy(name, value, left < sizeof name - 1 ? left : sizeof name - 1);
    name[strcspn(name, "\"")] = 0;
    *script = (Script){0};
    if (!strcmp(name, "plain")) return 1;
    unsigned long interval;
    if (sscanf(name, "stream-%d-%lu", &script->chunks, &interval) != 2) return 0;
    if (script->chunks < 1 || script->chunks > MOST_CHUNKS) return 0;
    script->interval_us = interval;
    const char *asked = value_of(body, size, "\"include_usage\"");
    script->usage = asked && *asked == 't';
    return 1;
}
