"""The agent: a site's side of one contact with a hub. `wire` speaks HTTP, `site` remembers, `contact` acts."""
