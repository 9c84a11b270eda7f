-- The oldest of a state that were settled at args.since or before, with their rows; a place that leads to none is removed.
local ids = redis.call('ZRANGEBYSCORE', DONE[args.state], '-inf', args.since, 'LIMIT', 0, args.limit)
local found, rows = {}, {}
for place, text in ipairs(fetch(ROW, ids)) do
  local row = text and parse(text)
  if not text or is_gone(text) or row and row.state ~= args.state then
    write('ZREM', DONE[args.state], ids[place])
  else
    found[#found + 1], rows[#rows + 1] = ids[place], text
  end
end
flush()
return { now, found, rows, #ids }
