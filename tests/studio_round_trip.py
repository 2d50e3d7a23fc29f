"""Run in an environment that has label-studio: its own validators, then a project made, judged and exported by it.

python studio_round_trip.py QUESTIONS OUT [QUESTIONS OUT ...]      # -> OUT/JSON.json, OUT/JSON_MIN.json, OUT/CSV.csv

Everything goes through Label Studio's views, serializers and exporters, on a database of SQLite in OUT.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any


def check_with_sdk(labels: str, tasks: list[dict[str, Any]]) -> None:
    """What label-studio-sdk says of the configuration, the tasks, and an answer."""
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(labels)
    interface.validate()
    assert all(interface.validate_task(task) for task in tasks)
    assert not interface.validate_task({"data": {"clip_id": "x"}})
    (control,) = (name for name in ("best", "good") if f'name="{name}"' in labels)
    assert interface.get_control(control).dynamic_value


def set_up(folder: pathlib.Path) -> None:
    """Start Label Studio's application in this process; it calls nobody."""
    import label_studio

    root = pathlib.Path(label_studio.__file__).parent
    sys.path.insert(0, str(root))
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "base"),
        "DATABASE_NAME": str(folder / "studio.sqlite3"),
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", "--no-color", verbosity=0)


def people() -> list[Any]:
    """Two users of one organization."""
    from organizations.models import Organization
    from users.models import User

    found = [User.objects.create_user(email=f"{name}@example.org", password="secret-7") for name in ("anna", "bob")]
    organization = Organization.create_organization(created_by=found[0], title="people")
    for user in found:
        organization.add_user(user)
        user.active_organization = organization
        user.save()
    return found


def asked(response: Any) -> Any:
    """The JSON of an answer that must be one of success."""
    assert response.status_code < 300, (response.status_code, response.content[:2000])
    return json.loads(response.content)


def clients_of(users: list[Any]) -> dict[str, Any]:
    """A client for each user, by address."""
    from rest_framework.test import APIClient

    clients = {}
    for user in users:
        clients[user.email] = APIClient()
        clients[user.email].force_authenticate(user)
        clients[user.email].force_login(user)
    return clients


def round_trip(questions: pathlib.Path, folder: pathlib.Path, clients: dict[str, Any]) -> None:
    """Make a project, import the tasks, judge them as two people, and export in three forms.

    Where several captions may be ticked, Anna ticks two, and Bob the second one, or that all are bad; of the second
    task he ticks both that all are bad and that one is good, which Label Studio does not keep him from.
    """
    from core.label_config import validate_label_config

    labels, tasks = (questions / "labels.xml").read_text("utf-8"), json.loads((questions / "tasks.json").read_bytes())
    check_with_sdk(labels, tasks)
    validate_label_config(labels)
    validate_label_config(labels.replace("<Image", "<Video").replace("$image", "$video"))
    several = 'choice="multiple"' in labels
    (anna, bob), client = clients, next(iter(clients.values()))
    project = asked(client.post("/api/projects/", {"title": "captions", "label_config": labels}, format="json"))["id"]
    imported = asked(client.post(f"/api/projects/{project}/import?return_task_ids=true", tasks, format="json"))
    assert imported["task_count"] == len(tasks)
    for number, (task_id, task) in enumerate(zip(imported["task_ids"], tasks, strict=True)):
        for email, choice in ((anna, "1"), (bob, "0" if number % 2 else "2")):
            regions = [region("good" if several else "best", "choices", choice)]
            if several and (email == anna or number == 1):
                regions[0]["value"]["choices"].append("2")
            if number == 0:
                regions.append(region("better", "text", f"{email}'s own words"))
            answer = {"result": regions, "lead_time": 2.5, "was_cancelled": email == bob and number == 2}
            asked(clients[email].post(f"/api/tasks/{task_id}/annotations/", answer, format="json"))
        assert task["data"]["captions"][0]["alias"] == "1"
    for kind, suffix in (("JSON", "json"), ("JSON_MIN", "json"), ("CSV", "csv")):
        exported = client.get(f"/api/projects/{project}/export?exportType={kind}")
        assert exported.status_code == 200, exported.content[:2000]
        content = b"".join(exported.streaming_content) if exported.streaming else exported.content
        (folder / f"{kind}.{suffix}").write_bytes(content)


def region(name: str, kind: str, text: str) -> dict[str, Any]:
    """A result as the editor sends it."""
    control = "textarea" if kind == "text" else kind
    return {"id": f"{name}1", "from_name": name, "to_name": "clip", "type": control, "value": {kind: [text]}}


if __name__ == "__main__":
    pairs = [*zip(sys.argv[1::2], sys.argv[2::2], strict=True)]
    set_up(pathlib.Path(pairs[0][1]))
    judges = clients_of(people())
    for asked_in, told_in in pairs:
        round_trip(pathlib.Path(asked_in), pathlib.Path(told_in), judges)
