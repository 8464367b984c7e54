"""A generated world of people and of visible and infrared cameras, for demos, tests and studies without a licence."""

from vireid.synthesis.world import World, attributes, contact_sheet, plan, render_person, write_world

__all__ = ["World", "attributes", "contact_sheet", "plan", "render_person", "write_world"]
