go_on_when_full()
local stale, news = settle(args.settlements)
return { now, news, stale }
