"""A dataset to export: two videos with reels and one without, clips with hostile text and with files of their own."""

from __future__ import annotations

import json
import pathlib

from report_dataset import candidate, clip, rejected, video, write_dataset, write_reel

DASHED = "-dash_video"
LONG = "L" * 100 + "_video"
HOSTILE = "=HYPERLINK(\"x\"), 'it''s'\n\\n \u2028 \ud55c\uad6d\uc5b4 \U0001f600 ]"


def write_clips(folder: pathlib.Path) -> pathlib.Path:
    """The dataset: `-dash_video` with three clips, `LLL..._video` with one, `plain` with two, `failed` with none."""
    own_file = {"clip_file": "media/plain-0-4000.mp4"}
    shots = [{"start_s": 0.0, "end_s": 5.0}, {"start_s": 5.0, "end_s": 9.5}]
    clips = [
        clip(DASHED, 1.0, 9.0, [candidate("frame", HOSTILE, 0.43), candidate("text", "-1", 0.25)], shots=shots),
        clip(DASHED, 9.5, 12.0, [candidate("frame", "@home", 0.5)], title="=1+1", abstained=True),
        clip(
            DASHED, 12.0, 14.0, [candidate("text", "a cat", 0.75)], subtitles="hello", desirable_filtering="desirable"
        ),
        clip(LONG, 0.5, 3.0, [candidate("frame", "a boat", 0.125)], matching_score=None, margin=None),
        clip("plain", 0.0, 4.0, [candidate("frame", "a dog runs", 0.5), candidate("text", "two", 0.25)], **own_file),
        clip("plain", 30000.125, 30009.5, [candidate("text", "late", 0.25)]),
    ]
    write_dataset(
        folder,
        videos=[
            video(DASHED, 20.0, uri="+videos/dash.mp4"),
            video(LONG, 5.0),
            video("plain", 40000.0),
            video("failed", None, "failed"),
        ],
        clips=clips,
        rejected=[rejected("plain", 4.0, 5.0, "trim", "trimmed", None, None)],
    )
    for name, duration_s in ((DASHED, 20.0), ("plain", 20.0)):
        write_reel(folder, name, duration_s, (64, 36))
    (folder / "media").mkdir()
    (folder / "media" / "plain-0-4000.mp4").write_bytes(b"a film")
    (folder / "media" / ".plain-30000125-30009500.mp4.7.tmp").write_bytes(b"half a film")
    return folder


def entomb(folder: pathlib.Path, *video_ids: str) -> None:
    """A takedown that was cut short: its stone stands, the rows too."""
    (folder / "runs").mkdir(exist_ok=True)
    stone = {"run_id": "takedown-1", "status": "running", "videos": list(video_ids)}
    (folder / "runs" / "takedown-1.json").write_text(json.dumps(stone))
