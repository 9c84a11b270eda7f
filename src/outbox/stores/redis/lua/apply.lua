go_on_when_full()
local changed, news = edit(args.changes, 1)
flush()
note_load()
return { now, news and tell() or '', changed }
