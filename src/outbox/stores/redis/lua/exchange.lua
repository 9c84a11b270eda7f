go_on_when_full()
-- What is settled here and goes on is news to all, also to who settled it: so the number is that from before.
local seen = latest()
local stale, news = settle(args.settlements)
return { now, seen, stale, claim(), news }
