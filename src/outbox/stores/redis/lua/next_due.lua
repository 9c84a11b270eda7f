-- When the first message of the queues can be claimed: now where one is ready, "" where there is none.
local first = ''
for _, queue in ipairs(served(args.queues)) do
  local lane = LANE[queue]
  if redis.call('ZCARD', lane.ready) > 0 or redis.call('ZCARD', lane.suspects) > 0 then return { now, now } end
  local id = redis.call('ZRANGE', lane.scheduled, 0, 0)[1]
  local text = id and redis.call('HGET', ROW, id)
  local row = text and parse(text)
  local due = row and row.due or id and now
  if due and (first == '' or tonumber(due) < tonumber(first)) then first = due end
end
return { now, first }
