"""The site's name of the image on a node where it means another image: refused, both ids said, never taken away."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.deploy.plan import plan_deploy
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.docker_engine import ImageFacts
from tests.unit.deploy.conftest import IMAGE_ID, seen

OTHER = "sha256:" + "2" * 64
NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize("role", ["head", "worker"])
@pytest.mark.parametrize("present", [True, False])
def test_a_name_that_means_another_image_on_a_node_is_refused(loaded: LoadedSite, role: Role, present: bool) -> None:
    images = (ImageFacts(id=OTHER, references=(loaded.site.image.reference,)),)
    images += (ImageFacts(id=IMAGE_ID),) if present else ()
    observation = seen(loaded, change={role: {"images": images}})
    with pytest.raises(RefusedError) as refused:
        plan_deploy(loaded.site, render_pair(loaded.site, loaded.profile), observation, now=NOW)
    assert refused.value.exit_code is ExitCode.REFUSED
    for text in (role, OTHER, IMAGE_ID, loaded.site.image.reference, "[image.moved_tag]"):
        assert text in refused.value.message


def test_other_names_of_other_images_are_nobodys_business(loaded: LoadedSite) -> None:
    images = (ImageFacts(id=OTHER, references=("somebody:else",)), ImageFacts(id=IMAGE_ID))
    observation = seen(loaded, change={"worker": {"images": images}})
    assert plan_deploy(loaded.site, render_pair(loaded.site, loaded.profile), observation, now=NOW).action == "start"
