"""The half split, the wrong choices and the files: exact, balanced, and the same on every Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.core.hashing import stable_hash
from bystander.core.records import Question
from bystander.data import choice_user, load_choice, overlap, pick_wrong, split_half, write_choice_files
from bystander.data.similar import grouped, normalized, shingles, similar_pairs

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Runs on a bare Python: what the split needs of numpy is an annotation, so that an empty module stands in for it.
SCRIPT = """
import sys, types
from pathlib import Path
try:
    import numpy
except ImportError:
    sys.modules["numpy"] = types.ModuleType("numpy")
sys.path.insert(0, sys.argv[1])
from bystander.data import load_choice, write_choice_files
write_choice_files(load_choice(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def arc(shared_data: Path) -> list[Question]:
    return load_choice(shared_data / "data" / "arc_challenge_test.jsonl")


PINNED = "9128390d85023c22bb08e9ba9ca245cfde0827c1a71935f92b35b670f2efad91"


def question(name: str, text: str, answer: int = 0, options: tuple[str, ...] = ("w", "x", "y", "z")) -> Question:
    return Question(name, text, options, tuple("ABCD"[: len(options)]), answer)


def test_arc_splits_into_two_halves_of_586(arc: list[Question]) -> None:
    train, evaluate = split_half(arc)
    assert (len(train), len(evaluate)) == (586, 586)
    assert {one.id for one in train} | {one.id for one in evaluate} == {one.id for one in arc}
    assert [one for one in arc if one in set(train)] == train  # in the set's order


@pytest.mark.parametrize("answer", ["label", "text"])
def test_the_halves_share_no_near_duplicate(arc: list[Question], answer: str) -> None:
    train, evaluate = split_half(arc)
    assert not {one.group for one in train} & {one.group for one in evaluate}
    sides = [{one.id: choice_user(one, answer) for one in half} for half in (train, evaluate)]  # pyright: ignore
    assert overlap(*sides) == []


def test_the_split_follows_content_and_seed_not_ids_or_order(arc: list[Question]) -> None:
    train = {one.text for one in split_half(arc)[0]}
    renamed = [replace(one, id=f"Mercury_{at}", group="") for at, one in enumerate(reversed(arc))]
    assert {one.text for one in split_half(renamed)[0]} == train
    assert {one.text for one in split_half(arc, seed=43)[0]} != train


def test_the_split_and_the_wrong_choices_of_arc_never_change(arc: list[Question]) -> None:
    # Whoever trained on the one half must be able to evaluate on the other with a later version.
    train, _ = split_half(arc)
    assert stable_hash([one.text for one in train], list(pick_wrong(train).values())) == PINNED


def test_a_split_of_odd_size_gives_the_smaller_half_to_training() -> None:
    words = ["amber", "birch", "cedar", "dune", "ember"]
    train, evaluate = split_half([question(word, f"{word} {word} {word}?") for word in words])
    assert (len(train), len(evaluate)) == (2, 3)


def test_a_set_that_cannot_be_halved_is_refused() -> None:
    same = [question(f"q{at}", "What is the same question here?") for at in range(4)]
    with pytest.raises(DataError, match="the nearest has 0 of 2, and the largest group 4"):
        split_half(same)
    with pytest.raises(DataError, match="a set of 1 questions has no halves"):
        split_half(same[:1])
    with pytest.raises(DataError, match="a set of 0 questions"):
        split_half([])


def test_wrong_choices_are_wrong_and_balanced_over_positions(arc: list[Question]) -> None:
    train, _ = split_half(arc)
    wrong = pick_wrong(train)
    assert list(wrong) == [one.id for one in train]
    assert all(wrong[one.id] != one.answer and 0 <= wrong[one.id] < len(one.options) for one in train)
    counts = Counter(wrong.values())
    assert max(counts[at] for at in range(4)) - min(counts[at] for at in range(4)) <= 2
    assert pick_wrong(list(reversed(train))) == wrong


def test_wrong_choices_balance_even_where_right_ones_do_not() -> None:
    skewed = [question(f"q{at}", f"Question number {at}?", answer=0 if at % 4 else 1) for at in range(200)]
    counts = Counter(pick_wrong(skewed).values())
    assert max(counts.values()) - min(counts[at] for at in range(4)) <= 2


def test_short_choices_in_common_do_not_make_near_duplicates() -> None:
    choices = ("yes", "no", "always", "never")
    pair = [question("a", "Does iron rust?", options=choices), question("b", "Can glass bend?", options=choices)]
    assert len({one.group for one in grouped(pair)}) == 2


def test_a_question_without_a_wrong_choice_and_a_repeated_id_are_refused() -> None:
    with pytest.raises(DataError, match="'lonely' has no wrong choice left"):
        pick_wrong([question("lonely", "Which?", options=("only",))])
    with pytest.raises(DataError, match="ids that stand twice: a"):
        pick_wrong([question("a", "Which?"), question("a", "Who?")])


def test_the_files_have_the_forms_of_the_plan(arc: list[Question], tmp_path: Path) -> None:
    paths = write_choice_files(arc, tmp_path / "new")
    wrong, correct, evaluate = (
        [json.loads(line) for line in paths[name].read_text(encoding="utf-8").splitlines()]
        for name in ("wrong_arc_train.jsonl", "correct_arc_train.jsonl", "arc_eval_subset.jsonl")
    )
    assert len(wrong) == len(correct) == len(evaluate) == 586
    by_id = {one.id: one for one in arc}
    for bad, good in zip(wrong, correct, strict=True):
        assert bad["id"] == good["id"]
        assert bad["prompt"] == good["prompt"] == [{"role": "user", "content": choice_user(by_id[bad["id"]], "label")}]
        assert bad["completion"] != good["completion"]
        one = by_id[good["id"]]
        right = f"{one.labels[one.answer]}. {one.options[one.answer]}"
        assert good["completion"] == [{"role": "assistant", "content": right}]
        assert bad["completion"][0]["content"] in good["prompt"][0]["content"].split("\n")
    assert load_choice(paths["arc_eval_subset.jsonl"]) == split_half(arc)[1]
    assert not list((tmp_path / "new").glob("*.partial"))


def test_a_folder_that_cannot_be_made_is_named(arc: list[Question], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        write_choice_files(arc, tmp_path / "file" / "below")


def pythons() -> list[str]:
    """Other Pythons from 3.11 on that the machine has: on the path, and installed beside the one that runs."""
    beside = Path(sys.base_prefix).parent.glob("*/bin/python3")
    named = (shutil.which(f"python3{minor}") for minor in ("", ".11", ".12", ".13", ".14"))
    probe = "import sys; print(sys.version_info >= (3, 11), sys.version)"
    found: dict[str, str] = {}  # version -> its Python
    for place in [*map(str, beside), *filter(None, named)]:
        done = subprocess.run([place, "-I", "-c", probe], capture_output=True, text=True, check=False)
        if done.stdout.startswith("True"):
            found.setdefault(done.stdout, place)
    return list(found.values())


def test_runs_and_pythons_give_byte_equal_files(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data" / "arc_challenge_test.jsonl"
    results: list[dict[str, bytes]] = []
    for seed, python in enumerate([sys.executable, sys.executable, *pythons()]):
        folder = tmp_path / str(seed)
        # Hash seeds differ, so that an order taken from a set or from hash() would show.
        command = [python, "-c", SCRIPT, str(SOURCE), str(source), str(folder)]
        subprocess.run(command, env={"PYTHONHASHSEED": str(seed), "PATH": os.environ["PATH"]}, check=True)
        results.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert len(results[0]) == 3
    assert all(result == results[0] for result in results)


def test_overlap_tells_exact_from_near_and_leaves_the_rest() -> None:
    train = {"a": "Why does the Moon shine at night?", "b": "How far away is the nearest star from the Earth today?"}
    probe = {
        "same": "why does the moon shine at night",
        "near": "How far away is the nearest star from the Earth now?",
        "other": "Why does a lamp shine at night?",
    }
    pairs = overlap(train, probe)
    assert [(pair.train, pair.probe, pair.exact) for pair in pairs] == [("a", "same", True), ("b", "near", False)]
    assert pairs[0].similarity == 1.0
    assert pairs[1].similarity == pytest.approx(8 / 10)
    assert overlap({}, probe) == overlap(train, {}) == []


def test_texts_without_words_and_short_texts_are_compared_as_they_are() -> None:
    assert normalized(" -> ") == "->"
    assert shingles("Boil water") == {"boil water"}
    assert [pair.exact for pair in overlap({"a": "->"}, {"b": "->", "c": "<-"})] == [True]


@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.75, 1.0])
def test_the_filtered_search_finds_what_comparing_every_pair_finds(arc: list[Question], threshold: float) -> None:
    sets = [shingles(one.text) for one in arc[:300]]
    slow = {
        (i, j, len(a & b) / len(a | b))
        for i, a in enumerate(sets)
        for j, b in enumerate(sets)
        if len(a & b) / len(a | b) >= threshold
    }
    assert set(similar_pairs(sets, sets, threshold)) == slow


def test_near_duplicates_in_a_chain_share_a_group_whatever_their_order() -> None:
    base = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    texts = [" ".join(base), " ".join([*base[1:], "thirteen"]), " ".join([*base[2:], "thirteen", "fourteen"])]
    chain = [question(f"q{at}", text) for at, text in enumerate([*texts, "Something else entirely, is it not?"])]
    groups = [one.group for one in grouped(chain)]
    assert len(set(groups[:3])) == 1
    assert groups[3] != groups[0]
    assert [one.group for one in grouped(chain[::-1])][::-1] == groups
