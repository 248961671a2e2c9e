"""Task tokens: what they hold, and that one which was cut or changed is none."""

from __future__ import annotations

import re

import pytest

from perdure import ToolContext
from perdure.errors import InvalidTaskToken
from perdure.tasktoken import read_task_token, task_token
from perdure.types import SessionKey

KEY = SessionKey(app="clerk", user_id="ann/ü \U0001f600", session_id="s 1")
CALL = "m1:t1.0"


def test_a_token_is_the_session_and_the_call() -> None:
    token = task_token(KEY, CALL)
    assert re.fullmatch(r"[\w-]+", token, re.ASCII)
    assert read_task_token(token) == (KEY, CALL)
    assert token == task_token(KEY, CALL), "every attempt has the same"


def test_a_tool_finds_it_in_its_context() -> None:
    context = ToolContext(key=KEY, result_id=CALL)
    assert read_task_token(context.task_token) == (KEY, CALL)


def test_one_that_was_cut_is_refused_wherever_it_was_cut() -> None:
    token = task_token(KEY, CALL)
    for end in range(len(token)):
        with pytest.raises(InvalidTaskToken):
            read_task_token(token[:end])


def test_one_that_was_changed_is_refused_whatever_was_changed() -> None:
    token = task_token(KEY, CALL)
    for place, letter in enumerate(token):
        with pytest.raises(InvalidTaskToken):
            read_task_token(token[:place] + ("A" if letter != "A" else "B") + token[place + 1 :])


@pytest.mark.parametrize("wrong", ["", "pt1_", "pt1_!", "pt2_abcd", "m1:t1.0", "pt1_ü", None, 7])
def test_what_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidTaskToken, match="task token"):
        read_task_token(wrong)


def test_nothing_may_stand_around_it() -> None:
    token = task_token(KEY, CALL)
    for around in (f" {token}", f"{token}\n", f"{token}=", f"{token}AA"):
        with pytest.raises(InvalidTaskToken):
            read_task_token(around)
