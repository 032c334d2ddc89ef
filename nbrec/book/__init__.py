"""What the chapters need beside the models: findings, tests of significance, figures."""
