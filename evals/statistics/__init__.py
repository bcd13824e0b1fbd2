"""Statistics of evaluations: intervals, paired tests, power, multiplicity, bets, agreement."""
