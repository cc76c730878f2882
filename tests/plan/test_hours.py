"""Hours from rates, and the file that rates are kept in; rates of the embedded world, measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from spro_hf.errors import UserError
from spro_hf.plan import summary
from spro_hf.plan.counts import Count, Counts
from spro_hf.plan.hours import Throughput, given, hours, load, save
from tests.plan.conftest import tiny

COUNTS = Counts(pictures=Count(7200), replies=Count(3600), reply=50, lessons=Count(1800), samples=Count(900))


def test_hours_by_hand():
    found = hours(tiny("1_prompt.yaml"), COUNTS, Throughput(2.0, 100.0, 0.5, 0.25))
    # 7,200 / 2 s, 3,600 · 50 / 100 s, 1,800 / 0.5 s, 900 / 0.25 s
    assert found == {"draw": 1.0, "reply": 0.5, "guider learns": 1.0, "generator learns": 1.0, "total": 3.5}
    shorter = hours(tiny("1_prompt.yaml"), COUNTS, Throughput(2.0, 100.0, 0.5, 0.25, tokens_per_reply=20))
    assert shorter["reply"] == pytest.approx(0.2)


def test_what_is_not_measured_is_not_known():
    found = hours(tiny("1_prompt.yaml"), COUNTS, Throughput(images_per_second=1.0))
    assert found == {"draw": 2.0, "reply": None, "guider learns": None, "generator learns": None, "total": None}
    found = hours(tiny("2_image.yaml"), Counts(samples=Count(7200)), Throughput(generator_samples_per_second=1.0))
    assert found["total"] == 2.0 and found["draw"] == 0.0  # nothing is drawn, so no rate is needed
    assert hours(tiny("2_image.yaml"), Counts(samples=Count(None, False)), Throughput(1, 1, 1, 1))["total"] is None


def test_grpo_replies_while_it_learns():
    found = hours(tiny("1_prompt.yaml", learn__method="grpo"), COUNTS, Throughput(2.0, None, 0.5, 0.25))
    assert found["reply"] == 0.0 and found["total"] == 3.0


def test_rates_are_written_and_read(tmp_path):
    rates = [Throughput(1.5, 20.0, tokens_per_reply=31.0), Throughput(generator_samples_per_second=3.0)]
    save(tmp_path / "rates.yaml", rates)
    assert load(tmp_path / "rates.yaml", 2) == rates
    with pytest.raises(UserError, match="has rates for 2 stages, but the recipe has 3"):
        load(tmp_path / "rates.yaml", 3)
    (tmp_path / "one.yaml").write_text("images_per_second: 2\n")
    assert load(tmp_path / "one.yaml", 3) == [Throughput(2.0)] * 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("images_per_secnd: 1", "unknown field 'images_per_secnd'; did you mean 'images_per_second'"),
        ("images_per_second: 0", "'images_per_second' is 0; give a rate above 0"),
        ("tokens_per_second: fast", "tokens_per_second: expected a number"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_rates_are_one_sentence(tmp_path, text, told):
    file = tmp_path / "rates.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"rates\.yaml") as caught:
        load(file, 1)
    assert told in str(caught.value)


def test_bad_rates_of_the_command_line():
    with pytest.raises(UserError, match="'tokens_per_second' is -1"):
        given(1.0, -1.0, None, None)
    with pytest.raises(UserError, match="cannot be read"):
        load(Path(__file__ + ".none"), 1)


@pytest.mark.parametrize(
    ("name", "changes", "measured"),
    [
        ("1_prompt.yaml", {"learn__dpo": {"per_device_train_batch_size": 2}},
         {"images_per_second", "tokens_per_second", "tokens_per_reply", "guider_samples_per_second"}),
        ("2_image.yaml", {"finetune": {"batch_size": 2}}, {"generator_samples_per_second"}),
        ("reinforce/flow_grpo.yaml", {"policy__batch_size": 2}, {"images_per_second", "generator_samples_per_second"}),
        ("4_evaluate.yaml", {}, {"images_per_second", "tokens_per_second", "tokens_per_reply"}),
    ],
)  # fmt: skip
def test_a_machine_is_measured(name, changes, measured, capsys):
    from spro_hf.plan import calibrate

    if name != "2_image.yaml" and "reinforce" not in name:
        changes = changes | {"guider__batch_size": 4}
    recipe = tiny(name, generator__batch_size=4, **changes)
    first, second = calibrate.measure([recipe, tiny(name, generator__batch_size=4, seed=5, **changes)])
    assert first is second  # the same work is measured once
    assert {key for key, value in vars(first).items() if value is not None} == measured
    assert all(vars(first)[key] > 0 for key in measured) and capsys.readouterr().err.count("measuring") == 1
    assert first.tokens_per_reply is None or 5 < first.tokens_per_reply <= 73  # of 72 at the most, and the end
    told = summary(recipe, rates=first)["hours"]
    assert told["total"] is not None and told["total"] > 0


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_other_trainings_of_the_guider_are_measured(method):
    from spro_hf.plan import calibrate

    block = {"per_device_train_batch_size": 2} | ({"num_generations": 2} if method == "grpo" else {})
    changes = {f"learn__{method}": block, "learn__method": method, "guider__batch_size": 2}
    (found,) = calibrate.measure([tiny("1_prompt.yaml", generator__batch_size=2, **changes)])
    assert found.guider_samples_per_second > 0
