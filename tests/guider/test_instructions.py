"""Instructions by hand, and the many ways in which a reply can be good or bad."""

from __future__ import annotations

import pytest

from spro_hf.errors import UserError
from spro_hf.guider.instructions import instruction, parse

GOOD = "Plan:\n1. Keep the dog\n2. Add evening light\nPrompt: a dog in evening light"


def test_compact_instruction_word_for_word():
    asked = instruction("compact", "aesthetics", " A red Circle ", True, 22, {})
    assert asked == "objective: aesthetics caption: a red circle plan: yes"
    assert instruction("compact", "preference", "x", False, None).endswith("caption: x plan: no")


def test_full_instruction_carries_limit_form_and_goal():
    asked = instruction("full", "aesthetics", "a dog on grass", True, 60, {})
    assert "Caption: a dog on grass\n" in asked
    assert "one to 6 short numbered steps" in asked
    assert "at most 60 words" in asked
    assert "beautiful" in asked
    assert asked.endswith("Plan:\n1. <first step>\n2. <second step>\nPrompt: <the final prompt>")


def test_full_instruction_without_reasoning_and_limit():
    asked = instruction("full", "preference", "a dog", False, None, {})
    assert "Plan:" not in asked and "words." not in asked and "prefer" in asked
    assert asked.endswith("Prompt: <the final prompt>")


def test_objectives_differ():
    assert len({instruction("full", o, "a dog", True, 60) for o in ("aesthetics", "engagement", "preference")}) == 3


def test_engagement_sees_tweet_and_company():
    asked = instruction("full", "engagement", "a shoe", True, None, {"tweet": "Run!", "company": "Acme"})
    assert "The tweet it is posted with: Run!\n" in asked
    assert "The account that posts it: Acme\n" in asked


@pytest.mark.parametrize(
    ("style", "objective", "told"),
    [("full", "engagement", True), ("full", "aesthetics", False), ("compact", "engagement", False)],
)
def test_only_what_the_objective_needs_of_a_context_is_told(style, objective, told):
    context = {"tweet": "Run {now}!", "company": "", "date": "2020-01-02", "tags": "shoe"}
    asked = instruction(style, objective, "a {red} shoe", True, None, context)
    assert ("Run {now}!" in asked) == told
    assert "a {red} shoe" in asked and "2020" not in asked and "tags" not in asked and "account" not in asked


def test_a_guider_that_sees_nothing_is_not_told_of_a_picture_before_it():
    seeing, blind = (instruction("full", "aesthetics", "a dog", True, 60, {}, sees) for sees in (True, False))
    assert seeing.startswith(
        "You improve prompts for a text-to-image model. The image shown was drawn from this caption:\n"
    )
    assert blind.startswith(
        "You improve prompts for a text-to-image model. This is the caption to improve:\nCaption: a dog\n"
    )
    assert "shown" not in blind and "new image" not in blind
    assert seeing.split("\n")[3:] == blind.split("\n")[3:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ful", "aesthetics", "a", True, 60, {}), "did you mean 'full'"),
        (("full", "aesthetic", "a", True, 60, {}), "did you mean 'aesthetics'"),
        (("full", "aesthetics", "  ", True, 60, {}), "empty"),
    ],
)
def test_bad_instructions_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        instruction(*arguments)


STEPS = ("Keep the dog", "Add evening light")


@pytest.mark.parametrize(
    ("text", "plan", "prompt"),
    [
        (GOOD, STEPS, "a dog in evening light"),
        ("plan: 1. keep a red circle 2. add soft shadow prompt: a red circle, soft shadow",
         ("keep a red circle", "add soft shadow"), "a red circle, soft shadow"),
        ("Plan: 1. keep a red circle Prompt: a red circle on navy", ("keep a red circle",), "a red circle on navy"),
        ("PLAN:\n1) Keep the dog\n2) Add evening light\nPROMPT: a dog", STEPS, "a dog"),
        ("**Plan:**\n1. Keep the dog\n2. **Add** evening light\n\n**Prompt:** a *dog*", STEPS, "a dog"),
        ("**Plan**:\n**1.** Keep the dog\n**2.** Add evening light\n**Prompt**: a dog", STEPS, "a dog"),
        ("### Plan:\n1. Keep the dog\n2. Add evening light\n\n### Final Prompt:\na dog", STEPS, "a dog"),
        ("```\n" + GOOD + "\n```", STEPS, "a dog in evening light"),
        ("```text\nPlan:\n1. Keep the dog\n2. Add evening light\n```\nPrompt:\n```\na dog\n```", STEPS, "a dog"),
        ("Sure! Here it is.\n\n" + GOOD, STEPS, "a dog in evening light"),
        (GOOD + "\n\nI hope this helps!", STEPS, "a dog in evening light"),
        (GOOD + "\nNote: I kept the dog.", STEPS, "a dog in evening light"),
        (GOOD.replace("a dog in", "a dog\nin"), STEPS, "a dog in evening light"),
        (GOOD.replace("a dog in evening light", '"a dog"'), STEPS, "a dog"),
        (GOOD.replace("a dog in evening light", "“a dog”"), STEPS, "a dog"),
        (GOOD.replace("a dog in evening light", '"OPEN" beside "SHUT"'), STEPS, '"OPEN" beside "SHUT"'),
        ("Plan:\n1. Improve the original prompt: add light\n2. Keep 5. as it is\nPrompt: a dog",
         ("Improve the original prompt: add light", "Keep 5. as it is"), "a dog"),
        ("Plan:\n1. At 5. pm the light is warm\nPrompt: a dog", ("At 5. pm the light is warm",), "a dog"),
        ("Plan: 1. keep it Prompt: at 7:30 pm: a snake_case sign", ("keep it",), "at 7:30 pm: a snake_case sign"),
    ],
)  # fmt: skip
def test_good_replies(text, plan, prompt):
    reply = parse(text, reasoning=True, word_limit=60)
    assert (reply.problem, reply.plan, reply.prompt) == (None, plan, prompt)
    assert reply.text == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no 'Prompt:' line"),
        ("a dog in evening light", "no 'Prompt:' line"),
        ("Plan:\n1. Keep the dog\n2. Add light", "no 'Prompt:' line"),
        ("Sorry, I cannot write a prompt: it is unsafe.", "no 'Prompt:' line"),
        ("I would not prompt: that", "no 'Prompt:' line"),
        ("Plan: 1. I cannot write the prompt: it is unsafe", "no 'Prompt:' line"),
        ("Plan:\n1. Keep\nPrompts: a dog", "no 'Prompt:' line"),
        ("Plan:\n1. Keep the dog\nPrompt:", "empty prompt"),
        ("Plan:\n1. Keep the dog\nPrompt: ... ,", "empty prompt"),
        ('Plan:\n1. Keep the dog\nPrompt: ""', "empty prompt"),
        ("Plan:\n1. <first step>\nPrompt: <the final prompt>", "a placeholder, no prompt"),
        ("Plan:\n1. Keep\nPrompt: [final prompt]", "a placeholder, no prompt"),
        ("Plan:\n1. Keep\nPrompt: I'm sorry, but I can't help with that.", "a refusal, no prompt"),
        ("Plan:\n1. Keep\nPrompt: I cannot do this", "a refusal, no prompt"),
        (GOOD + "\nPrompt: a cat", "two prompts"),
        ("Plan: 1. keep Prompt: a dog Prompt: a cat", "two prompts"),
        ("Prompt: a dog", "plan missing"),
        ("1. Keep\n2. Add\nPrompt: a dog", "plan missing"),
        ("Plan:\n- Keep\n- Add\nPrompt: a dog", "no numbered steps in the plan"),
        ("Plan:\n1.\n2. Add\nPrompt: a dog", "no numbered steps in the plan"),
        ("Plan:\nPrompt: a dog", "no numbered steps in the plan"),
        ("Prompt: a dog Plan: 1. keep a dog", "plan after the prompt"),
        ("Plan:\n" + "\n".join(f"{i}. step" for i in range(1, 8)) + "\nPrompt: a dog", "more than 6 plan steps"),
        ("Plan:\n1. Keep\nPrompt: " + "dog " * 61, "more than 60 words"),
    ],
)
def test_bad_replies(text, problem):
    reply = parse(text, reasoning=True, word_limit=60)
    assert (reply.prompt, reply.problem) == (None, problem)


def test_exactly_the_limit_and_no_limit():
    sixty = "Plan:\n1. Keep\nPrompt: " + "dog " * 60
    assert parse(sixty, True, 60).prompt == ("dog " * 60).strip()
    assert len(parse(sixty + "dog " * 40, True, None).prompt.split()) == 100


def test_unfinished_replies_are_cut_off():
    reply = parse(GOOD, True, 60, finished=False)
    assert (reply.prompt, reply.problem, reply.plan) == (None, "cut off", STEPS)
    assert parse("Plan: 1. ke", True, 60, finished=False).problem == "cut off"


def test_without_reasoning_a_plan_is_not_needed():
    assert parse("Prompt: a dog", False, 60).prompt == "a dog"
    assert parse("prompt: a dog, soft light", False, 60).prompt == "a dog, soft light"
    assert parse(GOOD, False, 60).plan == STEPS
    assert parse("a dog", False, 60).problem == "no 'Prompt:' line"
