-- The ids in these settled states, unless they are more than args.many.
local all, number = {}, 0
for _, state in ipairs(args.states) do number = number + redis.call('ZCARD', DONE[state]) end
if number > args.many then return { now, false } end
for _, state in ipairs(args.states) do
  for _, id in ipairs(redis.call('ZRANGE', DONE[state], 0, -1)) do all[#all + 1] = id end
end
return { now, all }
