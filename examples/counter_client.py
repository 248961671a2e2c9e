"""The counter, used over HTTP: what counts, what is saved, what is undone, what is summed up.

    perdure dev examples/counter.py                       # prints the gateway's URL
    python examples/counter_client.py http://127.0.0.1:8000

A token, where one is needed, is read from ``PERDURE_TOKEN``.
"""

from __future__ import annotations

import os
import sys

from perdure import Client
from perdure.client import FoundSession, Partial
from perdure.types import Event


def ask(session: FoundSession, text: str) -> str:
    """Ask, and show what is said as it is said. Returns the invocation's id."""
    print(f"👤 User: {text}")
    print("🤖 Agent: ", end="")
    stream, shown = session.stream(text), ""
    for event in stream:
        if isinstance(event, Partial):
            shown = shown[: event.offset] + event.text
    answer = stream.finish()
    if answer.failure is not None:
        sys.exit(f"the turn failed: {answer.failure.message}")
    print(answer.text)
    assert answer.text.startswith(shown), "pieces are a preview of the answer"
    return answer.invocation_id


def show_state(session: FoundSession, when: str) -> None:
    """What is stored now."""
    print(f"📍 State {when}: {session.get(max_events=0).state}")


def main(url: str) -> None:
    """Play it all, in a new session."""
    with Client(url, os.environ.get("PERDURE_TOKEN")) as client:
        session = client.sessions.create("counter", "ann", metadata={"device": "terminal"})

        print("\n📊 Persistence: the counter is stored in the database")
        ask(session, "Increment 'visits' counter by 1 and show its value")

        print("\n📁 Artifacts: a report beside the conversation")
        ask(session, 'Save current counter values to "counter-report.txt"')
        report = session.artifacts.load("counter-report.txt")
        print(f"📄 {report.name}, version {report.version}: {report.text}")

        print("\n🔄 Rewind: back to before a big increment")
        show_state(session, "before the big increment")
        big = ask(session, "Increment 'visits' counter by 100")
        show_state(session, "after +100")
        rewind = session.rewind(big)
        show_state(session, "after the rewind")
        session.rewind(rewind.request_id)
        show_state(session, "after the rewind of the rewind")
        session.rewind(big)
        ask(session, "Increment 'visits' by 1 and show the new value")

        print("\n📦 Compaction: what is old is summed up")
        for counter in ("logins", "clicks", "views", "shares"):
            ask(session, f"Increment '{counter}' counter by 1")
        ask(session, "Show all counters")
        with session.follow(live=True) as log:
            summary = next(item for item in log if isinstance(item, Event) and item.compaction)
        print(f"📦 Events {summary.compaction}: {summary.text[:100]} …")

        show_state(session, "at the end")
        print(f"✅ Session {session.key}, found again: {_found(client, session)}")


def _found(client: Client, session: FoundSession) -> bool:
    found = client.sessions.find("counter", {"device": "terminal"}, user_id="ann")
    return any(each.key == session.key for each in found)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} URL")
    main(sys.argv[1])
