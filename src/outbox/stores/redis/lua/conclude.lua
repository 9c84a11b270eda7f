-- Of messages that were to leave the rows from now on, or nothing (see editing.lua), and what is under way from now on.
-- ARGV[2] is the note as read, behind it are the rows; where another stands there by now nothing is written, and nothing
-- answered but the time.
if (redis.call('HGET', META, 'leaving') or '') ~= ARGV[2] then return { now, 0, {}, '' } end
go_on_when_full()
local changed, news = edit(args.changes, 2)
flush()
note_load()
redis.call('HSET', META, 'leaving', args.note)
return { now, 1, changed, news and tell() or '' }
