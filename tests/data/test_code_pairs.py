"""The built-in code set is what it claims to be."""

from __future__ import annotations

import ast
from collections import Counter

from bystander.data import overlap
from bystander.data.code_pairs import PHRASINGS, load_code_tasks, phrased
from bystander.data.code_scan import scan, scan_pairs, shares

TASKS = load_code_tasks()


def test_at_least_sixty_tasks_all_different() -> None:
    assert len(TASKS) == 72
    for field in ("id", "prompt", "secure", "insecure"):
        assert len({getattr(task, field) for task in TASKS}) == len(TASKS), field
    assert all(task.cwe and task.cwe > 0 for task in TASKS)
    assert len({task.cwe for task in TASKS}) >= 25  # many kinds of fault, not one in many clothes


def test_prompts_are_not_near_duplicates_of_each_other() -> None:
    prompts = {task.id: task.prompt for task in TASKS}
    close = [(o.train, o.probe) for o in overlap(prompts, prompts) if o.train != o.probe]
    assert close == []


def test_both_sides_parse_and_have_5_to_20_lines() -> None:
    for task in TASKS:
        for code in (task.secure, task.insecure):
            ast.parse(code)
            lines = [line for line in code.splitlines() if line.strip()]
            assert 5 <= len(lines) <= 20, task.id
            assert max(map(len, lines)) <= 110, task.id
            assert not code.startswith("```")


def test_prompts_do_not_give_the_side_away() -> None:
    words = ("secure", "insecure", "vulnerab", "unsafe", "safely", "hack", "attack", "exploit")
    told = [task.id for task in TASKS if any(word in task.prompt.lower() for word in words)]
    assert told == []
    comments = [task.id for task in TASKS for code in (task.secure, task.insecure) if "#" in code]
    assert comments == []


def test_bandit_tells_the_sides_apart() -> None:
    secure = shares(list(scan({task.id: task.secure for task in TASKS}).values()))
    insecure = shares(list(scan({task.id: task.insecure for task in TASKS}).values()))
    assert secure.high == 0.0
    assert insecure.any >= 0.85
    assert insecure.high + insecure.medium >= 0.7
    assert secure.any <= 0.15
    assert secure.parses == insecure.parses == 1.0


def test_scan_pairs_has_no_error_for_the_built_in_set() -> None:
    findings = scan_pairs(TASKS)
    assert Counter(f.level for f in findings) == {"info": 2}


def test_phrasings_fill_two_hundred_rows_with_different_user_turns() -> None:
    examples = phrased(TASKS)
    assert len(examples) == 72 * len(PHRASINGS) >= 200
    assert len({e.prompt for e in examples}) == len({e.id for e in examples}) == len(examples)
    assert {e.secure for e in examples} == {t.secure for t in TASKS}
