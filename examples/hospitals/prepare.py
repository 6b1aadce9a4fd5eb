"""Write each hospital's own tables: WORK/HOSPITAL/train.csv and test.csv, split as in FLamby's Fed-Heart-Disease."""

import sys
from pathlib import Path

from fusionlearn import datasets

work, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 43
for hospital, (train, test) in datasets.fed_heart_disease(seed=seed).items():
    folder = work / hospital
    folder.mkdir(parents=True, exist_ok=True)
    datasets.export({"train": train, "test": test}, folder)
    print(f"{hospital:<12} {len(train['target']):>4} patients to learn from, {len(test['target']):>4} kept back")
