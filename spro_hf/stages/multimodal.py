"""SPRO-MM: the trained guider with the trained generator, and by choice their co-evolution (SPRO, stage 3).

The paper puts both together and trains nothing more. ``rounds`` above 0 departs from it: in each further round the
guider plays against the newest generator, and the generator then learns the pictures of that round's winners.
"""

from __future__ import annotations

from spro_hf import parallel
from spro_hf.memory import free
from spro_hf.models import pinned
from spro_hf.schema import MultimodalRecipe
from spro_hf.stages import image, publish
from spro_hf.stages.room import Room
from spro_hf.stages.rounds import advance_seats, play, seat_all
from spro_hf.stages.studio import Studio, open_environment, open_guider


def run(room: Room) -> None:
    """Co-evolve for the recipe's rounds, then publish guider and generator together as an SPROPipeline under ``v1``."""
    recipe: MultimodalRecipe = room.recipe
    adapter = recipe.guider.adapter
    guider, name = open_guider(recipe.guider), pinned(adapter.repo, adapter.revision)
    environment, seats = open_environment(recipe.generator), seat_all(room) if recipe.rounds else []
    newest = publish.inputs(room)
    # without rounds nothing is scored
    studio = Studio(recipe, environment, recipe.select, newest["generator"].pinned) if recipe.rounds else None
    for step in range(recipe.rounds):
        number = recipe.first_round + step
        folder = play(room, number, seats, studio, guider, name)
        made = publish.by_first(lambda folder=folder, number=number: publish.round(room, number, folder))
        del guider  # there is room for one
        free()
        guider, name = open_guider(recipe.guider, str(folder / "guider")), made.pinned
        advance_seats(seats, folder / "rollouts", recipe.carry)
        tuned, pictures, steps = image.train(room, f"generator-v{step + 2}", environment, [folder / "rollouts"])
        tag = f"v{step + 2}"
        generator = publish.by_first(
            lambda tag=tag, told=(tuned, pictures, steps): publish.generator(
                room, tag, *told, [recipe.push["rollouts"]]
            )
        )
        newest = {"guider": made, "generator": generator}
        del environment
        studio.environment = None
        free()
        environment = open_environment(recipe.generator, str(tuned / "generator"))
        studio = studio.at(environment, newest["generator"].pinned)
    if parallel.first():
        publish.pipeline(room, "v1", newest, guider, environment.pipe)
