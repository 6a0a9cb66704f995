"""The benchmark of many adapters on a tiny model: both ways run, their losses agree, a fault is an error; and the sums
of a profile."""

import pytest

from bystander.bench import train_many as bench
from bystander.bench.kernels import KINDS, summed
from bystander.core.errors import ModelError
from bystander.core.progress import Silent
from bystander.core.records import StepLog
from bystander.lm.model import load


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


def test_both_ways_run_and_agree(loaded):
    (found,) = bench.bench_train_many(loaded, Silent(), adapters=2, tokens=40, spread=5, turns=2)
    assert "2 adapters" in found.work
    assert "plain" in found.work
    assert found.ours_per_second > 0
    assert found.plain_per_second > 0
    assert found.difference < 1e-4
    assert loaded.model is loaded.causal


def test_losses_that_differ_are_an_error(loaded, monkeypatch):
    right = bench.train_many

    def wrong(*args, **settings):
        for name, event in right(*args, **settings):
            yield (
                name,
                event.__class__(event.step, event.epoch, event.loss + 1e-3, 0, 1, 1)
                if isinstance(event, StepLog)
                else event,
            )

    monkeypatch.setattr(bench, "train_many", wrong)
    with pytest.raises(ModelError, match="beside others"):
        bench.bench_train_many(loaded, Silent(), adapters=2, tokens=40, spread=5, turns=1)


def test_a_trace_is_summed_by_kind_and_its_gaps_are_found():
    names = {
        "adapters' grouped products": "void cutlass::device_kernel<at::cuda::detail::GroupProblemShape<int>>()",
        "attention": "void pytorch_flash::flash_fwd_kernel<>()",
        "base and head products": "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT",
        "loss": "void cunn_SoftMaxForward<4, float>()",
        "optimizer": "void multi_tensor_apply_kernel<FusedAdam>()",
        "fused by the compiler": "triton_per_fused_add_mean_mul_0",
        "copies": "Memcpy HtoD (Pinned -> Device)",
        "other": "void at::native::vectorized_elementwise_kernel<>()",
    }
    assert list(names) == [kind for kind, _ in KINDS]
    events = [{"cat": "kernel", "name": name, "ts": 1000 * i, "dur": 500} for i, name in enumerate(names.values())]
    events.append({"cat": "gpu_memset", "name": "Memset", "ts": 250, "dur": 500})  # half of it beside the first kernel
    events.append({"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 10**6})
    found = summed(events, 2, 0.008)
    assert found.by_kind == pytest.approx(dict.fromkeys(names, 0.25) | {"copies": 0.5})
    assert found.span == pytest.approx(3.75)
    assert found.idle == pytest.approx(3.75 - (8 * 0.5 + 0.25) / 2)
    assert found.host == pytest.approx(4)
    assert "no kernel running" in "\n".join(found.lines())
