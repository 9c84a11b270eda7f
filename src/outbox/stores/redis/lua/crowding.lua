-- What a store that has no room for so many more answers, where a limit is set: {"full", messages, bytes, …}.
local function too_full(new_messages, new_bytes)
  local function too_much(limit, name, new)
    return limit ~= '' and new > 0 and counted(redis.call('HGET', META, name)) + new > tonumber(limit)
  end

  if not (too_much(args.max_messages, 'messages', new_messages) or too_much(args.max_bytes, 'bytes', new_bytes)) then
    return nil
  end
  local held = redis.call('HMGET', META, 'messages', 'bytes')
  local told = { 'full' }
  for _, number in ipairs({ counted(held[1]), counted(held[2]), new_messages, new_bytes }) do
    told[#told + 1] = string.format('%.0f', number)
  end
  return told
end
