-- Rows of these ids, as they stand now; with args.whole all that is kept of them.
local found = { now, fetch(ROW, args.ids) }
if args.whole then
  local past = {}
  for _, id in ipairs(args.ids) do
    past[#past + 1] = redis.call('HGET', PAST, id) or ''
    past[#past + 1] = redis.call('HGET', PAST, id .. '!') or ''
  end
  found[3], found[4], found[5] = fetch(ENVELOPE, args.ids), fetch(CONTENT, args.ids), past
end
return found
