-- Of each lane of args.queues, and of each of args.states: how many there are, of which the first so many are grouped, and
-- of what is ready since when the first has been due.
local function first_due(key)
  local first, from = '', '-'
  while true do
    -- Of the next priority the first: they are in this order within each.
    local place = redis.call('ZRANGEBYLEX', key, from, '+', 'LIMIT', 0, 1)[1]
    local due = place and string.match(place, '^%d%d%d:(' .. string.rep('%d', 18) .. '):')
    if not due then return first end
    if first == '' or due < first then first = due end
    from = '(' .. string.sub(place, 1, 3) .. ';'
  end
end

local told = {}
for _, queue in ipairs(args.queues) do
  local lane = LANE[queue]
  for _, key in ipairs({ lane.ready, lane.suspects }) do
    local ids = {}
    for place, text in ipairs(redis.call('ZRANGE', key, 0, args.most - 1)) do ids[place] = id_of(text) end
    told[#told + 1] = { redis.call('ZCARD', key), suspended(queue) and '' or first_due(key), grouped(ids) }
  end
  told[#told + 1] = { redis.call('ZCARD', lane.scheduled), '', grouped(redis.call('ZRANGE', lane.scheduled, 0, args.most - 1)) }
end
for _, state in ipairs(args.states) do
  told[#told + 1] = { redis.call('ZCARD', DONE[state]), '', grouped(redis.call('ZRANGE', DONE[state], 0, args.most - 1)) }
end
return { now, told }
