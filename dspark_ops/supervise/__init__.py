"""The pair supervisor: one owner on the head that notices, restarts both ranks as a pair, and says why."""
