"""Makes the transactions that the example trains on: invented, always the same, no download.

`python transactions.py FILE.csv` writes them. Five columns are features, `is_fraud` is what a model must
find, and `region` is no feature: it only says for whom a model works worse.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

FEATURES = ["amount", "is_online", "is_abroad", "is_night", "minutes_since_last"]
LABEL = "is_fraud"
GROUP = "region"
ROWS = 4000
SEED = 2
_REGIONS = {"north": 0.4, "south": 0.3, "east": 0.2, "west": 0.1}


def make(rows: int = ROWS, seed: int = SEED) -> pd.DataFrame:
    """Return transactions of which about one in eight is fraud."""
    chance = np.random.default_rng(seed)
    amount = chance.lognormal(3.6, 1.0, rows)
    online = chance.random(rows) < 0.55
    abroad = chance.random(rows) < np.where(online, 0.20, 0.08)
    night = chance.random(rows) < 0.25
    minutes = chance.exponential(180.0, rows)
    region = chance.choice(list(_REGIONS), p=list(_REGIONS.values()), size=rows)
    # No single fact is suspicious; a large sum in a hurry is, and so are small ones that try a card out.
    suspicion = (
        0.9 * np.log(amount)
        - 0.55 * np.log1p(minutes)
        + 1.3 * abroad
        + 0.7 * night
        + 1.6 * (online & abroad)
        + 1.0 * (night & ~online)
        + 2.0 * ((amount < 6) & (minutes < 60))
        + 0.4 * (region == "west")
    )
    fraud = chance.random(rows) < 1 / (1 + np.exp(4.0 * (3.4 - suspicion)))
    columns = (amount.round(2), online.astype(int), abroad.astype(int), night.astype(int), minutes.round(1))
    return pd.DataFrame({**dict(zip(FEATURES, columns, strict=True)), GROUP: region, LABEL: fraud.astype(int)})


def main() -> None:
    """Write them to a file."""
    parser = argparse.ArgumentParser(description="Write the invented transactions to a CSV file.")
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    file.parent.mkdir(parents=True, exist_ok=True)
    make().to_csv(file, index=False)


if __name__ == "__main__":
    main()
