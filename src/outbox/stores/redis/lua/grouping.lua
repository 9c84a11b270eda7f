-- Messages by queue and state: {name, number, due, first submitted, first due} of each.
local function grouped(ids)
  local groups, found = {}, {}
  for _, text in ipairs(fetch(ROW, ids)) do
    local row = text and not is_gone(text) and (parse(text) or salvaged(text))
    if row then
      local name = row.queue .. '\t' .. row.state
      local group = groups[name]
      if not group then
        group = { number = 0, due = 0, first = row.submitted, first_due = '', stopped = suspended(row.queue) }
        groups[name] = group
        found[#found + 1] = name
      end
      group.number = group.number + 1
      if tonumber(row.submitted) < tonumber(group.first) then group.first = row.submitted end
      if queued(row) and not group.stopped and tonumber(row.due) <= NOW then
        group.due = group.due + 1
        if group.first_due == '' or tonumber(row.due) < tonumber(group.first_due) then group.first_due = row.due end
      end
    end
  end
  local told = {}
  for place, name in ipairs(found) do
    local group = groups[name]
    told[place] = { name, group.number, group.due, group.first, group.first_due }
  end
  return told
end
