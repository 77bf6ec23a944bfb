"""loligo: unsupervised anomaly detection for radiology.

Learn from normal images alone; say of a new one how abnormal it is, where, and how sure that is. The whole flow:

    from loligo.api import evaluate, report, score, train

    run = train("squid", data="normals/", out="runs/a")          # a tenth is held out for calibration
    table = score(run, "new/")                                   # runs/a/scores.csv and runs/a/maps/
    print(table[["path", "anomaly_score", "p_value", "flag"]])

    run = train("squid", data="manifest.csv", out="runs/b", options={"slots": 400}, train={"epochs": 10})
    score(run)                                                   # the manifest's test split
    print(evaluate(run)["clean"]["auc"])                         # both protocols, with intervals
    report(run)                                                  # runs/b/report.html

Research use only: not a medical device.
"""

__version__ = "0.1.0"
NOTICE = "Research use only: not a medical device."
