"""Links from a report to what it was made from."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urljoin

from grpo_gsm8k.report.collect import read_run
from grpo_gsm8k.report.files_used import file_links
from tests.report import runs as made


def test_links_lead_from_the_report_to_files_that_exist(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a #1: 100%")
    (folder / "rollouts").mkdir()
    for target in (folder, tmp_path / "reports" / "x"):
        ((name, links),) = file_links([read_run(folder, "a")], target)
        assert name == "a"
        listed = [link.name for link in links]
        assert listed == ["config.yaml", "metrics.jsonl", "summary.json", "events.jsonl", "rollouts/", "validation/"]
        for link in links:
            address = urljoin((target / "report.html").as_uri(), link.address)
            assert Path(unquote(address.removeprefix("file://"))).exists()
            assert link.address.endswith(link.name)


def test_a_missing_folder_has_no_links() -> None:
    assert file_links([read_run(Path("/nowhere"), "a")], Path("/tmp")) == (("a", ()),)
