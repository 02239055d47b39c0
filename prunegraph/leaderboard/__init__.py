"""The leaderboard: networks x criteria x budgets x seeds, measured under equal conditions, kept, tabulated, drawn."""
