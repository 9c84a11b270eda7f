-- What may leave for another store, in the order in which it is to: the next so many ids behind the place args.at of the lane
-- args.lane, with their rows, and where to go on; without that it was the last.
local lanes = {}
for _, name in ipairs({ 'ready', 'suspects', 'scheduled' }) do
  for _, queue in ipairs(args.queues) do lanes[#lanes + 1] = { LANE[queue][name], name ~= 'scheduled' } end
end
for _, state in ipairs(args.states) do lanes[#lanes + 1] = { DONE[state], false } end

local ids, lane, at = {}, args.lane, args.at
while lanes[lane] and #ids < args.many do
  local key, by_turn = unpack(lanes[lane])
  local found = redis.call('ZRANGE', key, at, at + args.many - #ids - 1)
  for _, member in ipairs(found) do ids[#ids + 1] = by_turn and id_of(member) or member end
  at = at + #found
  if #ids < args.many then lane, at = lane + 1, 0 end
end
return { now, ids, fetch(ROW, ids), lanes[lane] and { lane, at } or {} }
