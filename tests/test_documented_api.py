"""The script of docs/python-api.md runs as it is printed."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_documented_script_runs(tmp_path, monkeypatch, capsys):
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python-api.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    script = script.replace('"protocols/quickstart.toml"', repr(str(ROOT / "protocols" / "quickstart.toml")))
    script = script.replace("seeds=[1]", "seeds=[1], settings=['compute.epochs=2']")
    exec(compile(script, "python-api.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "late_fusion 1 0." in printed
    assert "no information value 0." in printed
    assert (tmp_path / "results" / "quickstart" / "leaderboard.md").is_file()
