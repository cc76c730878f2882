"""SPRO-Prompt: the guider learns from its own wins and losses, round after round (SPRO, stage 1)."""

from __future__ import annotations

from spro_hf.memory import free
from spro_hf.models import pinned
from spro_hf.schema import PromptRecipe
from spro_hf.stages import publish
from spro_hf.stages.room import Room
from spro_hf.stages.rounds import advance_seats, play, seat_all
from spro_hf.stages.showcase import Showcase, seeds_of
from spro_hf.stages.studio import Studio, open_environment, open_guider


def run(room: Room) -> None:
    """Play the recipe's rounds; each leaves rollouts, pairs and a guider adapter on the Hub under ``round-<k>``."""
    recipe: PromptRecipe = room.recipe
    seats = seat_all(room)
    lora = recipe.generator.lora
    studio = Studio(
        recipe, open_environment(recipe.generator), recipe.select, pinned(lora.repo, lora.revision) if lora else None
    )
    start = recipe.guider.adapter
    name = pinned(start.repo, start.revision) if start else pinned(recipe.guider.id, recipe.guider.revision)
    show = Showcase(room, seeds_of(room))
    show.before(lambda: studio.environment)
    guider, played = open_guider(recipe.guider), []
    for number in range(1, recipe.rounds + 1):
        folder = play(room, number, seats, studio, guider, name)
        del guider  # there is room for one
        free()
        # from disk: a run that was interrupted goes on from exactly the same weights
        guider = open_guider(recipe.guider, str(folder / "guider"))
        show.draw(f"round-{number}", lambda: studio.environment, lambda guider=guider: guider)
        shown = show.score(f"round-{number}", lambda: studio)
        made = publish.by_first(lambda told=(number, folder, shown, played): publish.round(room, *told))
        name, played = made["guider"].pinned, [made["guider"]]
        advance_seats(seats, folder / "rollouts", recipe.carry)
