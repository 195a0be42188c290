"""Fine-tuning theory as claims with exact, re-checkable verdicts (standard library only at import)."""
