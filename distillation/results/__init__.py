"""Tables, measures and intervals, made of what runs left behind. No torch."""
