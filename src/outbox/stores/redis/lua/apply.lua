-- Rows that a person's command or their age has changed, each only where it is still what was read:
-- args.changes are {id, row from now on or "", whether its id is remembered}, what follows the rows as read; the places
-- (from 0) of the rest.
go_on_when_full()
local changed, ids, news = {}, {}, false
for place, each in ipairs(args.changes) do ids[place] = each[1] end
for place, text in ipairs(fetch(ROW, ids)) do
  local id, new, buried = unpack(args.changes[place])
  local read = ARGV[place + 1]
  if text ~= read then
    changed[#changed + 1] = place - 1
  else
    local row = parse(read)
    detach(id, row)
    if new == '' then
      discard(id, row, buried)
    else
      row = parse(new)
      write('HSET', ROW, id, new)
      attach(id, row)
      news = news or queued(row)
    end
  end
end
flush()
note_load()
return { now, news and tell() or '', changed }
