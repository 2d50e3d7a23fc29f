"""The catalogue: names, what it promises of each model, and that looking at it loads none."""

import importlib.resources
import pickle

import numpy as np
import pytest

from model_handlers import catalogue, conse
from model_handlers.catalogue import Thresholds
from model_handlers.labels import FALLBACK, expand, load_labels, with_article
from model_handlers.vision import WEIGHTS_SHA256
from model_handlers.weights import WeightsError, check_sha256

ENTRIES = [*catalogue.EMBEDDERS.values(), *catalogue.TEACHERS.values(), *catalogue.SELECTORS.values()]
#: Endpoints and weights that only a profile can name can't be built before it does.
COMPLETE = [entry for entry in ENTRIES if entry.settings is None or entry.settings.weights]


def test_lite_profile_has_its_seven_teachers():
    lite = {name: (entry.inputs, entry.needs_text) for name, entry in catalogue.TEACHERS.items() if "lite" in name}
    assert lite == {
        "lite-frame": ("V", False),
        "lite-frames": ("V", False),
        "lite-motion": ("V", False),
        "lite-scene": ("V", False),
        "lite-hedged": ("V", False),
        "lite-text": ("S-M", True),
        "lite-frames-text": ("V-S-M", True),
    }


@pytest.mark.parametrize("entry", COMPLETE, ids=lambda entry: entry.name)
def test_every_entry_says_what_it_is_and_travels_to_a_worker(entry):
    assert "" not in (entry.model, entry.revision, entry.licence, entry.summary)
    assert pickle.loads(pickle.dumps(entry.build())).name == entry.name


def test_no_two_teachers_have_model_and_prompt_in_common():
    ids = [(entry.model, entry.prompt_id) for entry in catalogue.TEACHERS.values()]
    assert sorted(set(ids)) == sorted(ids)


@pytest.mark.parametrize(
    ("find", "wrong", "right"),
    [
        (catalogue.embedder, "efficientnet", "efficientnet-lite0"),
        (catalogue.teacher, "lite-sene", "lite-scene"),
        (catalogue.selector, "conce", "conse"),
    ],
)
def test_wrong_name_is_answered_with_the_nearest_right_one(find, wrong, right):
    assert find(right).name == right
    with pytest.raises(ValueError, match=f"there is no .* '{wrong}'; did you mean '{right}'"):
        find(wrong)


def test_models_that_restrict_their_use_are_told_with_the_reason_and_free_ones_are_not():
    entries = [catalogue.teacher(name) for name in ("instructblip-vicuna-7b", "blip2-flan-t5-xl", "blip2-opt-2.7b")]
    assert catalogue.restrictions(entries) == (
        "instructblip-vicuna-7b: weights that were made from LLaMA are for non-commercial research; "
        "blip2-opt-2.7b: OPT's licence is for non-commercial research"
    )
    assert catalogue.restrictions(entries[1:2]) == ""


def test_calibrated_embedders_have_thresholds_in_a_sane_order():
    calibrated = [entry for entry in catalogue.EMBEDDERS.values() if entry.thresholds]
    assert [entry.name for entry in calibrated] == ["efficientnet-lite0", "clip-vit-h"]
    for entry in calibrated:
        limits = entry.thresholds
        assert isinstance(limits, Thresholds)
        assert 0 < limits.still < limits.stitch <= limits.transition < 2


def test_weights_that_are_not_the_pinned_ones_are_refused(tmp_path):
    forged = tmp_path / "weights.pth"
    forged.write_bytes(b"not the weights")
    with pytest.raises(WeightsError, match="is pinned; reinstall"):
        check_sha256(str(forged), WEIGHTS_SHA256)


def test_every_label_has_one_group_and_a_phrase_of_its_own():
    labels = load_labels()
    assert len(labels.phrases) == len(set(labels.phrases)) == 1000
    assert FALLBACK in labels.group_names
    assert labels.groups[207] == "a dog" and labels.kinds[207] == "an animal"
    assert labels.phrases[207] == "a golden retriever"
    assert (labels.phrases[134], labels.phrases[517]) == ("a crane (the bird)", "a construction crane")
    assert (labels.groups[919], labels.groups[963]) == ("a structure outdoors", "baked goods or fast food")


def test_no_label_is_listed_in_two_groups():
    import yaml

    text = (importlib.resources.files("model_handlers") / "phrases/labels.yaml").read_text("utf-8")
    listed = [label for group in yaml.safe_load(text)["groups"] for label in expand(group["labels"])]
    assert sorted(listed) == list(range(1000))


def test_group_probabilities_are_sums_of_their_labels():
    labels = load_labels()
    probabilities = np.zeros(1000)
    probabilities[[207, 208, 281]] = 0.5, 0.3, 0.2
    groups = dict(zip(labels.group_names, labels.by_group(probabilities), strict=True))
    kinds = dict(zip(labels.kind_names, labels.by_kind(probabilities), strict=True))
    assert groups["a dog"] == pytest.approx(0.8) and groups["a cat"] == pytest.approx(0.2)
    assert kinds["an animal"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("noun", "phrase"), [("beagle", "a beagle"), ("otter", "an otter"), ("European gallinule", "a European gallinule")]
)
def test_articles_follow_the_sound(noun, phrase):
    assert with_article(noun) == phrase


def test_bank_holds_distinct_whole_sentences():
    bank = conse.load_bank()
    assert len(bank) == len(set(bank)) > 400
    assert [text for text in bank if not text.endswith(".") or not text[0].isupper()] == []


def test_packaged_vectors_belong_to_the_packaged_texts():
    """After a change of labels.yaml or scenes.txt: `python -m model_handlers.conse`."""
    kept = conse.packaged_vectors()
    assert kept is not None
    bank = conse.load_bank()
    assert kept[0] == conse.fingerprint(load_labels(), bank)
    assert kept[1].shape == (1000, 384) and kept[2].shape == (len(bank), 384)
