-- Leases that run on; the places (from 0) of those that were lost.
go_on_when_full()
local lost, till, ids = {}, later(args.lease), {}
for place, each in ipairs(args.claims) do ids[place] = each[1] end
for place, text in ipairs(fetch(ROW, ids)) do
  local id, token = unpack(args.claims[place])
  local row = text and not is_gone(text) and parse(text) or nil
  if not row or not LANE[row.queue] or row.state ~= 'claimed' or string.format('%.0f', row.generation) .. '-' .. row.nonce ~= token then
    lost[#lost + 1] = place - 1
  else
    write('ZREM', LANE[row.queue].suspects, place_of(id, row))
    row.due = till
    write('HSET', ROW, id, render(row))
    write('ZADD', LANE[row.queue].scheduled, till, id)
  end
end
flush()
return { now, lost }
