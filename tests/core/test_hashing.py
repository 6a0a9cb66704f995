"""Stable hashes, seeds and orders: decided by names alone, on every machine."""

import subprocess
import sys

import pytest

from bystander.core.hashing import canonical_json, generator, seed_for, stable_hash, stable_order


def test_hash_and_seed_do_not_depend_on_the_process():
    code = "from bystander.core.hashing import *; print(stable_hash('a', 1, ['ü']), seed_for('villain', 0))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        ).stdout
        for s in ("1", "2")
    }
    assert seen == {f"{stable_hash('a', 1, ['ü'])} {seed_for('villain', 0)}\n"}


def test_parts_of_a_hash_are_kept_apart():
    assert stable_hash("ab", "c") != stable_hash("a", "bc")
    assert stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})


def test_what_json_has_no_form_of_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
    with pytest.raises(TypeError):
        canonical_json({1, 2})


def test_order_of_the_others_stays_when_an_item_comes():
    few, more = ["a", "b", "c", "d"], ["a", "b", "new", "c", "d"]
    assert [item for item in stable_order(more, "x") if item != "new"] == stable_order(few, "x")


def test_an_order_is_neither_the_given_one_nor_the_same_for_every_name():
    """Ten items: two orders agree by chance once in 3.6 million, and these do not."""
    given = list("abcdefghij")
    orders = [stable_order(given, name) for name in ("x", "y")]
    assert [sorted(order) for order in orders] == [given, given]
    assert len({tuple(order) for order in [given, given[::-1], *orders]}) == 4
    assert stable_order(given[::-1], "x") == orders[0], "the order that the items come in says nothing"


def test_generators_of_the_same_name_agree():
    assert (
        generator("a", 1).random(3).tolist()
        == generator("a", 1).random(3).tolist()
        != generator("a", 2).random(3).tolist()
    )
