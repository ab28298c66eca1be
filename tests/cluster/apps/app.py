"""An app as anybody writes one: the official SDK, set up by nothing but its environment.

Enters: OPENAI_BASE_URL and OPENAI_API_KEY, as the SDK reads them; CALLS (how many, endless by default), PAUSE (seconds
between them), MODEL, ANSWER (what is expected), TRACEPARENT (of the span that the calls belong to). Leaves: a JSON line
for each call (at, how, ok, text or error), plain and streamed in turn. The SDK's own retries are off: whatever fails is
seen.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionUserMessageParam

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Count to three."}]
MODEL = os.environ.get("MODEL", "gpt-4o")
ANSWER = os.environ.get("ANSWER", "one two three")


def plain(client: OpenAI) -> str:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    return answer.choices[0].message.content or ""


def streamed(client: OpenAI) -> str:
    chunks = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def main() -> int:
    parent = os.environ.get("TRACEPARENT")
    client = OpenAI(max_retries=0, default_headers={"traceparent": parent} if parent else None)
    calls = int(os.environ.get("CALLS", "0"))
    failed = 0
    for number in itertools.count() if calls == 0 else range(calls):
        call = streamed if number % 2 else plain
        said: dict[str, object] = {"at": time.time(), "how": call.__name__}
        try:
            text = call(client)
            said |= {"ok": text == ANSWER, "text": text}
        except OpenAIError as error:
            said |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
        failed += not said["ok"]
        sys.stdout.write(json.dumps(said) + "\n")
        time.sleep(float(os.environ.get("PAUSE", "0.05")))
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(main())
