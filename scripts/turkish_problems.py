"""Write the synthetic Turkish finance problems as JSON lines, for `data=jsonl`.

Usage: python -m scripts.turkish_problems FILE [COUNT] [SEED]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grpo_gsm8k.data.turkish_finance import COUNT, answer_of, word_problems


def main(file: Path, count: int = COUNT, seed: int = 0) -> None:
    """Write `count` lines of id, question and answer; the same arguments give the same bytes."""
    rows = [
        {"id": f"tr-{number:05d}", "question": problem.question, "answer": answer_of(problem)}
        for number, problem in enumerate(word_problems(count, seed))
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    print(f"{file}: {len(rows)} problems")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
