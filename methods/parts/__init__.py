"""What several methods share: masks, losses, backbones, pooling, schedules."""
