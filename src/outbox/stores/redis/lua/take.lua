-- Messages that leave: their rows from now on (see editing.lua), and the note of what is under way, of which args.note is the
-- beginning and the end, and args.notes the parts of each.  ARGV[2] is the note as read, behind it are the rows; where another
-- stands there by now nothing is written, and the second answer is 0.
if (redis.call('HGET', META, 'leaving') or '') ~= ARGV[2] then return { now, 0, {} } end
go_on_when_full()
local changed = edit(args.changes, 2)
local passed, parts = {}, {}
for _, place in ipairs(changed) do passed[place + 1] = true end
for place, part in ipairs(args.notes) do
  if not passed[place] then parts[#parts + 1] = part end
end
if #parts > 0 then
  -- Before the rows: what is noted and stands as it stood is left where it is, what stands aside and is not noted is lost to all.
  redis.call('HSET', META, 'leaving', args.note[1] .. table.concat(parts, ',') .. args.note[2])
end
flush()
note_load()
return { now, 1, changed }
