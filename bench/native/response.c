#define _GNU_SOURCE
#include "response.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LARGEST_LINE 65536

void response_begin(Response *response) {
    response->stage = HEAD;
    response->line.used = 0;
    response->status = response->closes = 0;
    response->left = 0;
}

static Stage head_read(Response *response) {
    char *head = response->line.data;
    int chunked = 0;
    long length = -1;
    if (sscanf(head, "HTTP/1.%*d %d", &response->status) != 1) return BROKEN;
    for (char *line = head; (line = strstr(line, "\r\n"));) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
        if (!strncasecmp(line, "transfer-encoding: chunked", 26)) chunked = 1;
        if (!strncasecmp(line, "connection: close", 17)) response->closes = 1;
    }
    if (chunked) return CHUNK_SIZE;
    if (length < 0) return BROKEN;
    response->left = (size_t)length;
    return length ? LENGTH : WHOLE;
}

/* Adds to the line up to and with `end`; the number of bytes taken. */
static size_t line_add(Response *response, const char *data, size_t size, const char *end, int *whole) {
    Buffer *line = &response->line;
    size_t before = line->used, length = strlen(end), from = before < length ? 0 : before - length;
    buffer_room(line, size + 1);
    memcpy(line->data + before, data, size);
    char *at = memmem(line->data + from, before + size - from, end, length);
    *whole = at != NULL;
    if (!at) {
        line->used += size;
        if (line->used > LARGEST_LINE) response->stage = BROKEN;
        return size;
    }
    line->used = (size_t)(at - line->data) + length;
    line->data[line->used] = 0;
    return line->used - before;
}

static void line_read(Response *response) {
    switch (response->stage) {
    case HEAD:
        response->stage = head_read(response);
        break;
    case CHUNK_SIZE: {
        char *end;
        response->left = strtoul(response->line.data, &end, 16);
        if (end == response->line.data) response->stage = BROKEN;
        else response->stage = response->left ? CHUNK_DATA : TRAILER;
        break;
    }
    case CHUNK_END:
        response->stage = response->line.used == 2 ? CHUNK_SIZE : BROKEN;
        break;
    case TRAILER:
        if (response->line.used == 2) response->stage = WHOLE;
        break;
    default:
        response->stage = BROKEN;
    }
    response->line.used = 0;
}

void response_feed(Response *response, const char *data, size_t size,
                   void (*body)(void *whom, const char *data, size_t size), void *whom) {
    while (size && response->stage != WHOLE && response->stage != BROKEN) {
        size_t taken;
        if (response->stage == LENGTH || response->stage == CHUNK_DATA) {
            taken = size < response->left ? size : response->left;
            body(whom, data, taken);
            response->left -= taken;
            if (!response->left) response->stage = response->stage == LENGTH ? WHOLE : CHUNK_END;
        } else {
            int whole;
            taken = line_add(response, data, size, response->stage == HEAD ? "\r\n\r\n" : "\r\n", &whole);
            if (whole) line_read(response);
        }
        data += taken;
        size -= taken;
    }
    if (size) response->stage = BROKEN; /* more than was asked for */
}
