"""SPRO-MM: the trained guider with the trained generator, and by choice their co-evolution (SPRO, stage 3).

The paper puts both together and trains nothing more. ``rounds`` above 0 departs from it: in each further round the
guider plays against the newest generator, and the generator then learns the pictures of that round's winners.
"""

from __future__ import annotations

from spro_hf import rollouts
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
    environment, seats = open_environment(recipe.generator), seat_all(recipe)
    newest, trained = publish.inputs(room), {"guider": None, "generator": None}
    studio = Studio(recipe, environment, recipe.select, newest["generator"].pinned)
    for step in range(recipe.rounds):
        number = recipe.first_round + step
        folder = play(room, number, seats, studio, guider, name)
        rows = rollouts.read(folder / "rollouts")
        made = publish.round(room, number, folder, rows)
        guider, name = open_guider(recipe.guider, str(folder / "guider")), made.pinned
        advance_seats(seats, rows, recipe.carry)
        tuned, pictures = image.train(room, f"generator-v{step + 2}", environment, rows)
        generator = publish.generator(room, f"v{step + 2}", tuned, pictures, [recipe.push["rollouts"]])
        newest = {"guider": made, "generator": generator}
        trained = {"guider": str(folder / "guider"), "generator": str(tuned / "generator")}
        environment = open_environment(recipe.generator, trained["generator"])
        studio = studio.at(environment, newest["generator"].pinned)
    publish.pipeline(room, "v1", newest, trained["guider"], trained["generator"])
